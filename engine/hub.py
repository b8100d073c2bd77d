"""Checkpoints by address: `hf://owner/repo/file` from the Hugging Face hub, anything else a path on this machine.

Tokenizers come from there by name. Only https is used, only files of the wanted names are fetched, no code among them,
and only after the hub has said how large they are.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from engine.checkpoint import CONFIG, PICKLED, RANDOM, SUMS, WEIGHTS

SCHEME = "hf://"
ADDRESS = "hf://OWNER/REPO[@REVISION][/FILE_OR_FOLDER]"
FILES = (".safetensors", *PICKLED)
BESIDE = ("*.json", CONFIG, "tokenizer/*", SUMS, WEIGHTS)
"""What comes with a checkpoint folder of ours; optimizer and random states, which only its own run needs, do not."""
TOKENIZER = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""What a tokenizer is read from, beside config.json, which says whose it is."""
LARGEST_GB = 20
"""The most that one address may have us download: four times TESTA's own checkpoints with all that lies in them."""
FAILURES = (HfHubHTTPError, HFValidationError, EntryNotFoundError, OSError)


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
    try:
        return _download(f"{owner}/{name}", inside.strip("/"), revision or None)
    except FAILURES as error:
        raise ValueError(f"checkpoint: {source}: {_in_words(error)}") from error


def tokenizer_folder(source: str) -> Path:
    """Where on this machine a tokenizer's files are: a folder, or by its name (`bert-base-uncased`) one of the hub.

    Raises:
        ValueError: there is no such thing, or the hub cannot be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        return _fetch(snapshot_download, source, revision=None, allow_patterns=[*TOKENIZER, "config.json"])
    except FAILURES as error:
        raise ValueError(
            f"model.text.tokenizer: {source!r} is no local folder and could not be had from the hub "
            f"({_in_words(error)}); give a folder with vocab.txt or tokenizer.json, or 'from_data' for "
            "a vocabulary made from the captions"
        ) from error


def _download(repository: str, inside: str, revision: str | None) -> Path:
    if inside.endswith(FILES):
        return _fetch(hf_hub_download, repository, filename=inside, revision=revision)
    wanted = [f"{inside}/{pattern}" if inside else pattern for pattern in BESIDE]
    whole = _fetch(
        snapshot_download, repository, revision=revision, allow_patterns=wanted, ignore_patterns=[f"*{RANDOM}"]
    )
    folder = whole / inside
    if not (folder / WEIGHTS).exists():
        where = f"its folder {inside}" if inside else "it"
        raise FileNotFoundError(f"{where} holds no {WEIGHTS}; name the file, which ends in {', '.join(FILES)}")
    return folder


def _fetch(download: Callable[..., Any], repository: str, **wanted: Any) -> Path:
    """What one of the hub's two functions downloads, unless it is too large; without the hub, what was had before."""
    if not constants.ENDPOINT.startswith("https://"):
        raise OSError(f"HF_ENDPOINT is {constants.ENDPOINT}; only https is used")
    try:
        planned = download(repository, dry_run=True, **wanted)
    except DryRunError as error:
        try:
            return Path(download(repository, local_files_only=True, **wanted))
        except LocalEntryNotFoundError as missing:
            # Such as a repository that is not there, or not for us.
            raise (error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else missing) from error
    files = [file for file in (planned if isinstance(planned, list) else [planned]) if file.will_download]
    unsized = next((file.filename for file in files if file.file_size is None), None)
    if unsized is not None:
        raise OSError(f"the hub does not say how large {unsized} is; download it yourself and give its path")
    size = sum(file.file_size for file in files) / 1e9
    if size > LARGEST_GB:
        raise OSError(
            f"would download {size:.1f} GB, more than {LARGEST_GB}; name a single file, or download it yourself and "
            "give its path"
        )
    return Path(download(repository, **wanted))


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
