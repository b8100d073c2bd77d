"""A folder of fetched files with a bound on its size, which all processes of a machine share.

files/ab/KEY.mp4    whole files; a key stands for an address and a state of the file there
incoming/KEY.mp4    files that are being fetched, already as long as they will be
used                how many bytes there are; more than that after a process was killed, until they are counted again

Locks say what is in use: a reader holds a shared lock on its file, who fetches an exclusive one. A file is removed only
under an exclusive lock, so never while any process reads it, and a lock ends with its process, however that ends.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path

from configs.sizes import format_bytes
from datasets.remote.streams import RemoteError

FILES, INCOMING, USED, LOCK = "files", "incoming", "used", "lock"
EVICT_TO = 0.9
"""The share of the bound down to which files are removed, so that not every new file has to look for room."""
POLL_SECONDS = 0.1
ROOM_SECONDS = 120.0
"""How long to wait for room while all files are in use."""


@dataclass(frozen=True)
class Held:
    """A file of the cache that stays there until `release`."""

    path: Path
    file: BufferedRandom

    def release(self) -> None:
        """Let others remove the file."""
        self.file.close()


class Cache:
    """The cache in a folder; any number of processes and threads may use it at once.

    Args:
        most_bytes: the bound. Files that are being fetched count with their whole size.
        beat: called while it waits for another process.
    """

    def __init__(self, folder: Path, most_bytes: int, beat: Callable[[], None] = lambda: None) -> None:
        self.folder, self.most_bytes, self._beat = folder, most_bytes, beat
        try:
            for name in (FILES, INCOMING):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RemoteError(
                f"no cache can be kept in {folder} ({error.strerror})",
                passing=False,
                remedy="set data.remote.cache_dir to a folder with room",
            ) from None

    def find(self, key: str) -> Held | None:
        """The file of a key, which then counts as just used; None if it is not there."""
        path = self._path(key)
        while True:
            try:
                file = path.open("r+b")
            except FileNotFoundError:
                return None
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_nlink:
                os.utime(file.fileno())
                return Held(path, file)
            file.close()  # removed between opening and locking

    @contextmanager
    def incoming(self, key: str, size: int | None) -> Iterator["Incoming | Held"]:
        """A new file to write, of `size` bytes if they are known; what is left unfinished is removed.

        If another process fetches the same file, this waits for it, and gives that one.
        """
        path = self.folder / INCOMING / key
        while True:
            found = self.find(key)
            if found is not None:
                yield found
                return
            file = _open_alone(path)
            if file is not None:
                break
            self._beat()
            time.sleep(POLL_SECONDS)

        with file:
            found = self.find(key)  # it came between the look and the lock
            if found is not None:
                path.unlink()
                yield found
                return
            new = Incoming(self, key, path, file)
            try:
                if size is not None:
                    new.reserve(size)
                yield new
            finally:
                new.discard()

    def make_room(self, size: int, whole: int) -> None:
        """Count `size` bytes more, and remove the least recently used files where that is too many.

        `whole` is what the file has with them. RemoteError if the bound is smaller, or if everything stays in use.
        """
        if whole > self.most_bytes:
            raise RemoteError(
                f"it has {format_bytes(whole)}, more than the whole cache of {format_bytes(self.most_bytes)}",
                passing=False,
                remedy="raise data.remote.cache_gib",
            )
        give_up = time.monotonic() + ROOM_SECONDS
        while not self._has_room(size):
            if time.monotonic() > give_up:
                raise RemoteError(
                    f"all {format_bytes(self.most_bytes)} of the cache are in use",
                    passing=True,
                    remedy="raise data.remote.cache_gib, or lower train.workers",
                )
            self._beat()
            time.sleep(POLL_SECONDS)

    def give_back(self, size: int) -> None:
        """Count `size` bytes less."""
        with self.locked():
            self._note(max(self._noted() - size, 0))

    def _has_room(self, size: int) -> bool:
        with self.locked():
            used = self._noted()
            if used + size > self.most_bytes:
                used = self._evict(int(self.most_bytes * EVICT_TO) - size)
            if used + size > self.most_bytes:
                self._note(used)
                return False
            self._note(used + size)
            return True

    def _evict(self, most_bytes: int) -> int:
        """Remove files that are not in use, those used longest ago first; returns how many bytes remain."""
        # What a killed process was fetching is locked by nobody.
        incoming = list((self.folder / INCOMING).iterdir())
        used = sum(0 if _remove_unused(path) else _size_of(path) for path in incoming)

        found = []
        for path in (self.folder / FILES).glob("*/*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        used += sum(size for _, size, _ in found)

        for _, size, path in sorted(found):
            if used <= max(most_bytes, 0):
                break
            if _remove_unused(path):
                used -= size
        return used

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else counts or removes files in the block."""
        with (self.folder / LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _noted(self) -> int:
        """The bytes that are counted; counted anew where nobody has, or where the note is damaged."""
        try:
            return int((self.folder / USED).read_text())
        except (FileNotFoundError, ValueError):
            return self._evict(2**62)

    def _note(self, used: int) -> None:
        new = self.folder / f"{USED}.new"
        new.write_text(str(used))
        new.replace(self.folder / USED)

    def _path(self, key: str) -> Path:
        return self.folder / FILES / key[:2] / key


class Incoming:
    """A file that is being fetched; it is in the cache once `finish` was called."""

    def __init__(self, cache: Cache, key: str, path: Path, file: BufferedRandom) -> None:
        self._cache, self._key, self._path, self._file = cache, key, path, file
        self._reserved, self._written, self._finished = 0, 0, False
        file.truncate(0)

    def reserve(self, size: int) -> None:
        """Make room for `size` bytes in all."""
        self._cache.make_room(size - self._reserved, size)
        self._reserved = size
        os.truncate(self._file.fileno(), size)  # others count its length

    def write(self, piece: bytes) -> None:
        """Append bytes; RemoteError if there are more than the cache can hold."""
        self._written += len(piece)
        if self._written > self._reserved:
            self.reserve(self._written)
        self._file.write(piece)

    def finish(self) -> Held:
        """Put the whole file in the cache, where it is held."""
        self._file.flush()
        os.truncate(self._file.fileno(), self._written)
        path = self._cache.folder / FILES / self._key[:2] / self._key
        path.parent.mkdir(exist_ok=True)
        self._path.rename(path)
        self._finished = True
        # The exclusive lock becomes a shared one, of a file that stays open. Nobody removes files meanwhile.
        with self._cache.locked():
            fcntl.flock(self._file, fcntl.LOCK_UN)
            held = self._cache.find(self._key)
        assert held is not None, "files are removed under the lock alone"
        return held

    def discard(self) -> None:
        """Remove the file unless it is finished."""
        if not self._finished:
            self._path.unlink(missing_ok=True)
            self._cache.give_back(self._reserved)


def _open_alone(path: Path) -> BufferedRandom | None:
    """Open a file and lock it for ourselves; None if somebody else has it."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):  # in use, or finished or removed meanwhile
        pass
    file.close()
    return None


def _remove_unused(path: Path) -> bool:
    """Remove a file unless somebody holds a lock on it; whether it is gone."""
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
