"""Checkpoints by address: `hf://owner/repo/file` on the Hugging Face hub, anything else is a path on this machine.

Tokenizers come from the hub by name. We use https only, fetch only files with the names we need, never code, and only
once the hub has told us their size. If the hub cannot be reached, or HF_HUB_OFFLINE is set, earlier downloads are taken
from the cache. Needs no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2
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
from huggingface_hub.utils import get_session

from engine.checkpoint_files import CONFIG, PICKLED, RANDOM, SUMS, WEIGHTS

SCHEME = "hf://"
ADDRESS = "hf://OWNER/REPO[@REVISION][/FILE_OR_FOLDER]"
FILES = (".safetensors", *PICKLED)
BESIDE = ("*.json", CONFIG, "tokenizer/*", SUMS, WEIGHTS)
"""What we fetch of a checkpoint folder of ours; only its own run needs the optimizer and the random states."""
TOKENIZER = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""The files of a tokenizer, besides config.json, which names its class."""
LARGEST_GB = 20
"""The most that we download for one address: four times TESTA's own checkpoints with all their contents."""
PROBE_SECONDS = 5.0
"""How long to wait for the hub's first answer before it counts as unreachable."""
OFFLINE_REMEDY = "fetch it where there is a network with `python -m scripts.fetch {} --to FOLDER`, see docs/OFFLINE.md"
FAILURES = (HfHubHTTPError, HFValidationError, EntryNotFoundError, OSError)


@cache
def why_unreachable() -> str | None:
    """Why the hub cannot be reached, in words; None if it can. Each process tries only once."""
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except (httpx2.RequestError, OSError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine. `find` it once, where its name comes in; each call may send requests to the hub.

    Attributes:
        source: the path or address that the user gave.
        path: the file or folder on this machine.
    """

    source: str
    path: Path

    @classmethod
    def find(cls, source: str, cache_dir: Path | None = None) -> "Checkpoint":
        """The checkpoint at a path or an address, fetched if need be; `ValueError` as `local_path` raises it."""
        return cls(source, local_path(source, cache_dir))

    @property
    def folder(self) -> Path:
        """The folder that holds its files."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def weights(self) -> Path:
        """The file that holds its weights."""
        return self.path / WEIGHTS if self.path.is_dir() else self.path

    def beside(self, name: str) -> Path | None:
        """The file or folder `name` that a run of ours wrote beside the weights; None if there is none."""
        # Among someone else's weights, a file of this name may mean anything.
        is_ours = self.path.is_dir() or self.path.name == WEIGHTS
        return self.folder / name if is_ours and (self.folder / name).exists() else None


def local_path(source: str, cache_dir: Path | None = None) -> Path:
    """The file or folder of a checkpoint on this machine; what is on the hub is downloaded once and cached.

    `hf://owner/repo/file.pth` is that file alone, and `hf://owner/repo` or `hf://owner/repo/folder` is a checkpoint
    folder of ours with its config.yaml and tokenizer. `@revision` after the repository is a branch, a tag or a commit.
    Downloads are kept in `cache_dir`, by default the hub's own cache.

    Raises:
        ValueError: there is no such checkpoint, or the hub cannot be reached.
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
        return _download(f"{owner}/{name}", inside.strip("/"), revision or None, cache_dir)
    except FAILURES as error:
        raise ValueError(f"checkpoint: {source}: {_in_words(error, f'--checkpoint {source}')}") from error


def tokenizer_folder(
    source: str,
    cache_dir: Path | None = None,
    *,
    setting: str = "model.text.tokenizer",
    otherwise: str = ", or 'from_data' for a vocabulary made from the captions",
) -> Path:
    """The folder of a tokenizer's files on this machine. `source` is a folder, or a name on the hub.

    Args:
        cache_dir: where downloads are kept, by default the hub's own cache.
        setting, otherwise: for the error: the setting that named it, and what could be given instead of a folder.

    Raises:
        ValueError: there is no such tokenizer, or the hub cannot be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        patterns = [*TOKENIZER, "config.json"]
        return _fetch(snapshot_download, source, cache_dir, revision=None, allow_patterns=patterns)
    except FAILURES as error:
        reason = _in_words(error, "--config FILE")
        raise ValueError(
            f"{setting}: {source!r} is no local folder and cannot be fetched from the hub ({reason}); give a folder "
            f"with vocab.txt or tokenizer.json{otherwise}"
        ) from error


def _download(repository: str, inside: str, revision: str | None, cache_dir: Path | None) -> Path:
    if inside.endswith(FILES):
        return _fetch(hf_hub_download, repository, cache_dir, filename=inside, revision=revision)

    wanted = [f"{inside}/{pattern}" if inside else pattern for pattern in BESIDE]
    unwanted = [f"*{RANDOM}"]
    repository_folder = _fetch(
        snapshot_download, repository, cache_dir, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted
    )
    folder = repository_folder / inside
    if not (folder / WEIGHTS).exists():
        place = f"its folder {inside}" if inside else "it"
        raise FileNotFoundError(f"{place} holds no {WEIGHTS}; name the file, which ends in {', '.join(FILES)}")
    return folder


def _fetch(download: Callable[..., Any], repository: str, cache_dir: Path | None, **wanted: Any) -> Path:
    """Call one of the hub's two download functions, unless that is too large; without the hub, look in the cache."""
    if cache_dir is not None:
        wanted["cache_dir"] = cache_dir
    if not constants.ENDPOINT.startswith("https://"):
        raise OSError(f"HF_ENDPOINT is {constants.ENDPOINT}; only https is used")
    if why_unreachable() is not None:
        # Without `local_files_only`, the hub's functions would retry many times.
        return Path(download(repository, local_files_only=True, **wanted))

    # A dry run tells the sizes.
    try:
        planned = download(repository, dry_run=True, **wanted)
    except DryRunError as error:
        try:
            return Path(download(repository, local_files_only=True, **wanted))
        except LocalEntryNotFoundError as missing:
            # The hub's own answer says more, such as that there is no such repository.
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


def _in_words(error: Exception, fetched_by: str) -> str:
    """What went wrong and what to do, on one line.

    `fetched_by` is what `scripts.fetch` is given to fetch the same.
    """
    # Subclasses come before the classes that they inherit from.
    if isinstance(error, LocalEntryNotFoundError):
        reason = why_unreachable() or "it did not answer"
        return f"is not on this machine, and the hub cannot be reached ({reason}); {OFFLINE_REMEDY.format(fetched_by)}"
    if isinstance(error, GatedRepoError):
        return "is gated; accept its terms on the hub, then log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private; log in with `hf auth login` if it is yours"
    if isinstance(error, EntryNotFoundError):
        return "the repository has no such file"
    return " ".join(str(error).split()) or type(error).__name__
