"""Folders elsewhere: what is in them, and copies of the annotation files that lie there."""

import html
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from datasets.remote.addresses import WEB, RemoteFolder, identity, join, scheme_of
from datasets.remote.fetch import fetched, tried_with
from datasets.remote.filesystems import call_patiently, file_system, state_of
from datasets.remote.settings import current
from datasets.remote.streams import RemoteError, State, open_body

MOST_FOLDERS = 100_000
LARGEST_PAGE = 64 << 20
"""Bytes of a web server's list of a folder."""


def listing(folder: RemoteFolder) -> dict[str, State | None]:
    """The files in a folder and below, by their paths in it, sorted; hidden ones are left out.

    Each has the state that the listing tells, None for a web server's. ValueError if
    that is not possible.
    """
    try:
        found = _of_web(folder) if scheme_of(folder.address) in WEB else _of_store(folder)
    except RemoteError as error:
        raise ValueError(f"{folder}: cannot be listed: {error}") from None
    return {name: found[name] for name in sorted(found) if not name.startswith(".") and "/." not in name}


def names_below(folder: RemoteFolder) -> list[str]:
    """The paths, in a folder, of the files in it and below, sorted."""
    return list(listing(folder))


def folders_below(folder: RemoteFolder) -> Iterator[tuple[str, list[str]]]:
    """The address of each folder with the names of its files, level by level from the top."""
    by_folder: dict[str, list[str]] = {}
    for name in listing(folder):
        above, _, last = name.rpartition("/")
        by_folder.setdefault(above, []).append(last)
    for above in sorted(by_folder, key=lambda path: (path.count("/") if path else -1, path)):
        yield join(folder.address, above) if above else folder.address, by_folder[above]


def copy_of(file: RemoteFolder) -> Path:
    """A copy on this machine of a list that lies elsewhere, up to date. ValueError if it cannot be had."""
    parent = file.parent
    target = _place_of(parent) / file.name
    _copy_to(file.address, target)
    return target


def annotation_folder(folder: RemoteFolder, media_suffixes: Sequence[str], named: Sequence[str] = ()) -> Path:
    """A folder on this machine with the files of `folder` and its folder `annotations` that are no media.

    Copies carry a modification time that follows from the state of the file, so what is made from them stays valid. Of
    a web server that lists no folder only the files `named` are copied. ValueError, naming the file, if one cannot be
    had.
    """
    local = _place_of(folder)
    try:
        names = [name for name in _top_of(folder) if not name.lower().endswith((*media_suffixes, ".tar"))]
    except ValueError:
        if not named:
            raise
        names = [name for name in named if "://" not in name and not name.startswith("/")]

    for name in names:
        _copy_to(join(folder.address, name), local / name)
    local.mkdir(parents=True, exist_ok=True)
    return local


def _place_of(folder: RemoteFolder) -> Path:
    return current().cache_dir / "annotations" / identity(folder.address)[:16] / (folder.name or "root")


def _copy_to(address: str, target: Path) -> None:
    try:
        with fetched(address) as file:
            _copy(Path(file.path), target, file.state)
    except RemoteError as error:
        raise ValueError(f"{address}: {error}") from None


def _copy(cached: Path, target: Path, state: State) -> None:
    time = (state.version, state.version)
    if target.is_file() and target.stat().st_mtime_ns == state.version and target.stat().st_size == state.size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"{target.name}.{os.uname().nodename}-{os.getpid()}")
    shutil.copyfile(cached, new)
    os.utime(new, ns=time)
    new.replace(target)


def _top_of(folder: RemoteFolder) -> list[str]:
    """The names of the files in a folder and in its folder `annotations`, not further below."""
    try:
        web = scheme_of(folder.address) in WEB
        found = _of_web(folder, deep=False) if web else _of_store(folder, deep=False)
        if any(name == "annotations/" for name in found):
            inner = folder / "annotations"
            below = _of_web(inner, deep=False) if web else _of_store(inner, deep=False)
            found |= {f"annotations/{name}": state for name, state in below.items()}
    except RemoteError as error:
        raise ValueError(f"{folder}: cannot be listed: {error}") from None
    return sorted(name for name in found if not name.endswith("/") and not name.startswith("."))


def _of_store(folder: RemoteFolder, deep: bool = True) -> dict[str, State | None]:
    """What fsspec lists; folders, which end in a slash, only where the list is not deep."""

    def listed() -> dict[str, State | None]:
        files, path = file_system(folder.address)
        path = path.rstrip("/")
        infos = files.find(path, detail=True).values() if deep else files.ls(path, detail=True)
        found: dict[str, State | None] = {}
        for info in infos:
            name = info["name"].removeprefix(path).lstrip("/")
            if info["type"] == "directory":
                found[f"{name.rstrip('/')}/"] = None
            elif name:
                found[name] = state_of(info)
        if not found:
            raise FileNotFoundError(folder.address)
        return found

    return tried_with(folder.address, lambda seconds: call_patiently(listed, folder.address, seconds))


def _of_web(folder: RemoteFolder, deep: bool = True) -> dict[str, State | None]:
    """What the pages of a web server link to; folders only where the list is not deep."""
    found: dict[str, State | None] = {}
    waiting, seen = [""], 0
    while waiting:
        above = waiting.pop()
        seen += 1
        if seen > MOST_FOLDERS:
            raise RemoteError("it has folders without end", passing=False, remedy="name the videos in a manifest")
        for link in _links(f"{join(folder.address, above).rstrip('/')}/"):
            if not link.endswith("/"):
                found[above + link] = None
            elif deep:
                waiting.append(above + link)
            else:
                found[above + link] = None
    return found


def _links(page: str) -> list[str]:
    """The names that a page links to directly below itself; those of folders end in a slash."""

    def read(seconds: float) -> str:
        with open_body(page, seconds) as body:
            pieces, left = [], LARGEST_PAGE
            for piece in body.chunks:
                left -= len(piece)
                if left < 0:
                    raise RemoteError("it is no list of files", passing=False, remedy="name the videos in a manifest")
                pieces.append(piece)
            return b"".join(pieces).decode("utf-8", "replace")

    text, base = tried_with(page, read), urlsplit(page)
    names = []
    for target in re.findall(r"<a\s[^>]*?href\s*=\s*[\"']([^\"'#]+)", text, re.IGNORECASE):
        parts = urlsplit(urljoin(page, html.unescape(target)))
        if parts.netloc == base.netloc and parts.path.startswith(base.path) and not parts.query:
            name = unquote(parts.path.removeprefix(base.path))
            if name and "/" not in name.rstrip("/") and name.rstrip("/") not in (".", ".."):
                names.append(name)
    if not names:
        raise RemoteError(
            "the page links to no file in this folder", passing=False, remedy="name the videos in a manifest"
        )
    return sorted(set(names))
