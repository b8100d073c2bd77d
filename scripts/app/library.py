"""The videos that the page knows: indexed ones by number, uploaded ones by a random name, and nothing else.

What is sent, and copies that browsers play, lie in one folder that is the page's own and ends with it.
"""

import os
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.decode import DecodeError
from datasets.records import is_image
from datasets.remote.addresses import is_address
from datasets.remote.fetch import CachedFile
from datasets.video.files import at_hand
from scripts.app.playback import media_type, write_copy

UPLOADS_KEPT, COPIES_KEPT = 8, 32
"""The oldest leave, so that the page never fills the disk."""
NAME_CHARACTERS = 120
UPLOAD = "upload-"
"""How keys of videos that were sent begin."""


@dataclass(frozen=True)
class PageVideo:
    """A video or an image, and what people call it; `key` is its name in addresses of the page.

    `path` is a text where it is the address of a file elsewhere.
    """

    key: str
    path: Path | str
    name: str

    @property
    def is_image(self) -> bool:
        """Whether it is a still picture."""
        return is_image(str(self.path))

    @property
    def is_upload(self) -> bool:
        """Whether somebody sent it, so that its name says nothing about it."""
        return self.key.startswith(UPLOAD)


@dataclass(frozen=True)
class Playable:
    """A file that browsers play; of a copy there is no sound."""

    path: Path
    media_type: str
    is_copy: bool


class Library:
    """All videos of the page.

    Args:
        paths: the index's videos, each once.
        folder: an empty folder of the page's own.
        failed: why a video could not be indexed, by its path.
        check: called while a copy is written; what it raises ends the copy.

    Attributes:
        failed: names and reasons of the videos that could not be indexed, in the order of their names.
    """

    def __init__(
        self,
        paths: Sequence[str],
        folder: Path,
        failed: Mapping[str, str] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self._check = folder, check
        failed = failed or {}

        # Names are as short as they can be and still differ.
        names = _short_names([*paths, *failed])
        self.failed = sorted((names[path], reason.replace(path, names[path])) for path, reason in failed.items())

        self._of_index = [
            PageVideo(f"index-{number}", path if is_address(path) else Path(path), names[path])
            for number, path in enumerate(paths)
        ]
        self._key_of = {path: video.key for path, video in zip(paths, self._of_index, strict=True)}
        self._uploads: OrderedDict[str, PageVideo] = OrderedDict()
        self._playable: OrderedDict[str, Playable] = OrderedDict()
        self._one_copy_at_a_time = threading.Lock()

    @property
    def size(self) -> int:
        """How many videos the index has."""
        return len(self._of_index)

    def of_index(self, first: int, most: int) -> list[PageVideo]:
        """Some videos of the index, in its order."""
        return self._of_index[first : first + most]

    def indexed(self, path: str) -> PageVideo:
        """The video of the index that lies at a path."""
        return self.find(self._key_of[path])

    def find(self, key: str) -> PageVideo:
        """The video of a key; KeyError if there is none."""
        if key in self._uploads:
            return self._uploads[key]
        kind, _, number = key.partition("-")
        if kind != "index" or not number.isascii() or not number.isdigit() or int(number[:9]) >= self.size:
            raise KeyError(key)
        return self._of_index[int(number[:9])]

    def new_upload(self, name: str) -> PageVideo:
        """A place for a video that is being sent, which nobody can guess; `name` is shown and means nothing else."""
        key = f"{UPLOAD}{secrets.token_hex(16)}"
        if len(name) > NAME_CHARACTERS:
            name = f"{name[: NAME_CHARACTERS - 1]}…"
        return PageVideo(key, self.folder / key, name or "your video")

    def add_upload(self, video: PageVideo) -> None:
        """Keep a video that was sent and is one; the oldest leaves where there are too many."""
        self._uploads[video.key] = video
        while len(self._uploads) > UPLOADS_KEPT:
            key, oldest = self._uploads.popitem(last=False)
            Path(oldest.path).unlink(missing_ok=True)
            self._drop_copy(key)

    def playable(self, video: PageVideo) -> Playable:
        """The file itself or a copy, made when it is first asked for. ValueError if the file cannot be read."""
        # What is prepared does not wait while another video is copied.
        found = self._playable.get(video.key)
        if found is not None:
            return found
        with self._one_copy_at_a_time:
            if video.key not in self._playable:
                self._playable[video.key] = self._as_it_is_or_copied(video)
                # A list first, as an upload that leaves may take its copy out meanwhile.
                copies = [key for key, found in list(self._playable.items()) if found.is_copy]
                for key in copies[:-COPIES_KEPT]:
                    self._drop_copy(key)
            return self._playable[video.key]

    def is_prepared(self, video: PageVideo) -> bool:
        """Whether `playable` answers at once."""
        return video.key in self._playable

    def _as_it_is_or_copied(self, video: PageVideo) -> Playable:
        copy = self.folder / f"{video.key}.copy.mp4"
        if isinstance(video.path, Path):
            kind = media_type(video.path)
            if kind is not None:
                return Playable(video.path, kind, is_copy=False)
            write_copy(video.path, copy, self._check)
            return Playable(copy, "video/mp4", is_copy=True)

        # The cache may let go what was fetched while somebody watches.
        try:
            with at_hand(video.path) as local:
                assert isinstance(local, CachedFile)
                kind = media_type(Path(local.path))
                if kind is None:
                    write_copy(Path(local.path), copy, self._check)
                else:
                    shutil.copyfile(local.path, copy)
        except DecodeError as error:
            raise ValueError(f"{video.path}: cannot be read ({error.reason})") from None
        return Playable(copy, kind or "video/mp4", is_copy=True)

    def _drop_copy(self, key: str) -> None:
        found = self._playable.pop(key, None)
        if found is not None and found.is_copy:
            found.path.unlink(missing_ok=True)


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """Names of paths and addresses: without the folder that is above all of them, if there is one."""
    folders = {os.path.dirname(path) for path in paths}
    if len({is_address(path) for path in paths}) != 1:
        return {path: path for path in paths}
    above = os.path.commonpath(folders)
    return {path: os.path.relpath(path, above) for path in paths}
