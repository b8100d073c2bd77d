"""The layout of a public dataset on disk: which of its known files exist, and which file belongs to a video name."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.remote.addresses import Folder, RemoteFolder, join, resolve
from datasets.remote.folders import folders_below

RELEASE = "the reference's repackaged annotations"
AUTHORS = "the authors' own annotations"
VIDEO_SUFFIXES = (
    *(".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".flv"),
    *(".mpg", ".mpeg", ".wmv", ".3gp", ".3g2", ".mts", ".m2ts", ".ts", ".ogv"),
)


@dataclass(frozen=True)
class Format:
    """One form in which a split is published: whose files they are, and their names; all of them are needed.

    `split` is the honest name of what they contain; by default the requested one.
    """

    whose: str
    files: tuple[str, ...]
    split: str | None = None


@dataclass(frozen=True)
class Found:
    """The format that was found, the paths of its files in the order of `files`, and a description of both."""

    format: Format
    paths: tuple[Path, ...]
    source: str


def check_split(dataset: str, split: str, splits: Sequence[str]) -> None:
    """ValueError, which lists them, if the dataset has no such split."""
    if split not in splits:
        raise ValueError(f"data.dataset: {dataset} has no split {split!r}; it has {', '.join(splits)}")


def choose(dataset: str, split: str, root: Path, formats: Sequence[Format]) -> Found:
    """The first of `formats` whose files are all in `root` or `root/annotations`.

    `source` says which one it is, and which other files exist but are not read. ValueError if none is complete.
    """
    complete = [found for each in formats if (found := _find(each, root)) is not None]
    if not complete:
        wanted = ", or ".join(" and ".join(each.files) for each in formats)
        names = dict.fromkeys(name for each in formats for name in each.files)
        there = [name for name in names if find_file(name, root) is not None]
        only = f" and holds only {', '.join(there)}" if there else ""
        raise ValueError(
            f"data.root: {root} (or its folder annotations) lacks the annotations of {dataset}'s {split!r}{only}; "
            f"put {wanted} there, docs/DATASETS.md says where to get them"
        )

    found = complete[0]
    unread = [path.name for other in complete[1:] for path in other.paths if path not in found.paths]
    also = f"; there but not read: {', '.join(dict.fromkeys(unread))}" if unread else ""
    return Found(found.format, found.paths, found.source + also)


def _find(wanted: Format, root: Path) -> Found | None:
    paths = [path for name in wanted.files if (path := find_file(name, root)) is not None]
    if len(paths) < len(wanted.files):
        return None
    names = ", ".join(str(path.relative_to(root)) for path in paths)
    return Found(wanted, tuple(paths), f"{wanted.whose} ({names})")


def find_file(name: str, root: Path) -> Path | None:
    """The file of that name in `root` or `root/annotations`; None if neither holds it."""
    for folder in (root, root / "annotations"):
        if (folder / name).is_file():
            return folder / name
    return None


class VideoFolder:
    """Finds videos by name in a folder and all folders below it, which are listed once.

    A file nearer to the top takes precedence. Among files in one folder that differ only by suffix, the `expected`
    suffix comes first, then the order of VIDEO_SUFFIXES. A missing folder counts as empty.
    """

    def __init__(self, videos: Folder, expected: str = ".mp4") -> None:
        self._videos = videos.absolute()
        self._expected = expected
        self._by_name: dict[str, str] = {}
        self._by_stem: dict[str, str] = {}

        # The first file to take a name keeps it, so list files in their order of precedence.
        order = dict.fromkeys((expected, *VIDEO_SUFFIXES))
        rank = {suffix: position for position, suffix in enumerate(order)}
        for folder, names in _folders(self._videos):
            videos_first = sorted(names, key=lambda name: (rank.get(_suffix(name), len(rank)), name))
            for name in videos_first:
                path = join(folder, name)
                self._by_name.setdefault(name, path)
                if _suffix(name) in VIDEO_SUFFIXES:
                    self._by_stem.setdefault(_stem(name), path)

    def path(self, name: str) -> str:
        """The absolute path of the video `name`: that file, or one that differs only by the suffix of a video.

        `name.avi` finds `name.avi`, `name.avi.mp4` or `name.mp4`, in this order. For a missing video, the path where it
        is expected. ValueError for a name that leaves the folder.
        """
        climbs = os.pardir in name and os.path.normpath(name).split(os.sep)[0] == os.pardir
        if climbs or os.path.isabs(name) or "://" in name:
            raise ValueError(
                f"video {name!r} leaves the folder {self._videos}; correct the annotations, and set data.videos to the "
                "folder that holds all videos"
            )

        spellings = [name, _stem(name)] if _suffix(name) in VIDEO_SUFFIXES or name.endswith(".") else [name]
        for spelling in spellings:
            for files in (self._by_name, self._by_stem):
                if spelling in files:
                    return files[spelling]
        return resolve(self._videos, name if len(spellings) == 2 else name + self._expected)


def _folders(top: Folder) -> Iterator[tuple[str, list[str]]]:
    """Each folder with the names of its files, level by level from the top; links to folders are followed."""
    if isinstance(top, RemoteFolder):
        yield from folders_below(top)
        return
    seen: set[str] = set()
    level = [str(top)]
    while level:
        below: list[str] = []
        for folder in level:
            real = os.path.realpath(folder)
            # A link may lead back up: visit each folder once.
            if real in seen or not os.path.isdir(folder):
                continue
            seen.add(real)

            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
            below += [entry.path for entry in listed if entry.is_dir()]
            yield folder, [entry.name for entry in listed if not entry.is_dir()]
        level = below


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _suffix(name: str) -> str:
    """The suffix with its dot, in lower case; empty if there is none."""
    before, dot, last = name.rpartition(".")
    return f".{last.lower()}" if dot and before else ""
