"""Checkpoints by address: `hf://owner/repo/file` from the Hugging Face hub, anything else a path on this machine."""

from pathlib import Path, PurePosixPath

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from engine.checkpoint import CONFIG, PICKLED, RANDOM, WEIGHTS

SCHEME = "hf://"
ADDRESS = "hf://OWNER/REPO[@REVISION][/FILE_OR_FOLDER]"
FILES = (".safetensors", *PICKLED)
BESIDE = ("*.json", CONFIG, "tokenizer/*", WEIGHTS)
"""What comes with a checkpoint folder of ours; optimizer and random states, which only its own run needs, do not."""


def local_path(source: str) -> Path:
    """Where on this machine a checkpoint is, a file or a folder; one of the hub is downloaded once and kept.

    `hf://owner/repo/file.pth` is that file alone, and `hf://owner/repo` or `hf://owner/repo/folder` a checkpoint folder
    of ours with its config.yaml and tokenizer. `@revision` after the repository is a branch, a tag or a commit.

    Raises:
        ValueError: there is no such thing, or the hub cannot be reached.
    """
    if not source.startswith(SCHEME):
        if "://" in source:
            raise ValueError(f"checkpoint: {source}: an address begins with {SCHEME}; anything else is a local path")
        if not Path(source).exists():
            raise ValueError(f"checkpoint: {source} does not exist")
        return Path(source)
    owner, _, rest = source.removeprefix(SCHEME).partition("/")
    name, _, inside = rest.partition("/")
    name, at, revision = name.partition("@")
    if not (owner and name) or (at and not revision) or ".." in PurePosixPath(inside).parts:
        raise ValueError(f"checkpoint: {source}: is no address of the form {ADDRESS}")
    if not constants.ENDPOINT.startswith("https://"):
        raise ValueError(f"checkpoint: {source}: HF_ENDPOINT is {constants.ENDPOINT}; only https is used")
    try:
        return _download(f"{owner}/{name}", inside.strip("/"), revision or None)
    except (HfHubHTTPError, HFValidationError, EntryNotFoundError, OSError) as error:
        raise ValueError(f"checkpoint: {source}: {_in_words(error)}") from error


def _download(repository: str, inside: str, revision: str | None) -> Path:
    if inside.endswith(FILES):
        return Path(hf_hub_download(repository, inside, revision=revision))
    wanted = [f"{inside}/{pattern}" if inside else pattern for pattern in BESIDE]
    whole = snapshot_download(repository, revision=revision, allow_patterns=wanted, ignore_patterns=[f"*{RANDOM}"])
    folder = Path(whole) / inside
    if not (folder / WEIGHTS).exists():
        where = f"its folder {inside}" if inside else "it"
        raise FileNotFoundError(f"{where} holds no {WEIGHTS}; name the file, which ends in {', '.join(FILES)}")
    return folder


def _in_words(error: Exception) -> str:
    """What went wrong and what to do, on one line; of the kinds, the special ones come first."""
    if isinstance(error, LocalEntryNotFoundError):
        return "is not on this machine, and the hub cannot be reached; download it elsewhere and give its path"
    if isinstance(error, GatedRepoError):
        return "is gated; accept its terms on the hub, then log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private; log in with `hf auth login` if it is yours"
    if isinstance(error, EntryNotFoundError):
        return "the repository has no such file"
    return " ".join(str(error).split()) or type(error).__name__
