"""Media files as FFmpeg and Pillow open them: paths, members of shards, and errors in one line.

A file elsewhere is fetched by `at_hand`, the only place that does; what follows reads files on this machine.
"""

import io
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from datasets.records import ShardMember
from datasets.remote.addresses import is_address, shown
from datasets.remote.fetch import CachedFile, fetched
from datasets.remote.streams import Range, RemoteError, State

logger = logging.getLogger(__name__)
_warned: set[str] = set()


class DecodeError(Exception):
    """A file that cannot be read; `reason` is one line, and `passing` says that it may be readable later."""

    def __init__(self, path: str, reason: str, passing: bool = False) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.passing = passing

    def __reduce__(self) -> tuple[type["DecodeError"], tuple[str, str, bool]]:
        return DecodeError, (self.path, self.reason, self.passing)


LocalFile = str | ShardMember | CachedFile
"""A file on this machine: a path, a member of a shard, or what was fetched of a file elsewhere."""


class Source(NamedTuple):
    """A file: its readable name, the address that FFmpeg opens, and its state. Equal states mean equal contents."""

    name: str
    address: str
    state: tuple[int, int]


@contextmanager
def at_hand(file: str | ShardMember | CachedFile) -> Iterator[LocalFile]:
    """A file on this machine in the block: itself, or what is fetched from its address or from its shard's.

    DecodeError, naming the address, if it cannot be had.
    """
    address = file.shard if isinstance(file, ShardMember) else str(file)
    if isinstance(file, CachedFile) or not is_address(address):
        yield file
        return

    name, part, expected = shown(address), None, None
    if isinstance(file, ShardMember):
        name, part, expected = str(file), Range(file.offset, file.size), State(*file.shard_state)
    with _errors_named(name), fetched(address, part, expected) as cached:
        if not cached.size:
            raise DecodeError(name, "the file is empty")
        yield cached._replace(name=name)


@contextmanager
def _errors_named(name: str) -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise DecodeError(name, error.reason, error.passing) from None


def source_of(file: LocalFile) -> Source:
    """The address and state of a file. DecodeError if it does not exist or is empty."""
    path = str(file)
    if isinstance(file, CachedFile):
        return Source(file.name, file.path, (file.size, file.state.version))
    if isinstance(file, ShardMember):
        _check_shard(file)
        size, state = file.size, file.shard_state
    else:
        status = _status(path, path, "no such file")
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError(path, "not a file")
        size, state = status.st_size, (status.st_size, status.st_mtime_ns)

    if not size:
        raise DecodeError(path, "the file is empty")

    # FFmpeg's subfile protocol reads a range of bytes of another file.
    if isinstance(file, ShardMember):
        address = f"subfile,,start,{file.offset},end,{file.offset + file.size},,:{file.shard}"
        return Source(path, address, state)
    return Source(path, path, state)


def opened_by_pillow(file: LocalFile) -> str | io.BytesIO:
    """What `Image.open` takes. DecodeError if the shard has changed."""
    if isinstance(file, CachedFile):
        return file.path
    if not isinstance(file, ShardMember):
        return file
    _check_shard(file)
    with open(file.shard, "rb") as shard:
        shard.seek(file.offset)
        return io.BytesIO(shard.read(file.size))


def one_line(error: Exception) -> str:
    """The message of an error in one line of at most 200 characters, without the address of a shard's member."""
    text = re.sub(r"subfile,,start,\d+,end,\d+,,:", "", str(error))
    return " ".join(text.split())[:200] or type(error).__name__


def warn_once(kind: str, message: str) -> None:
    """Warn only about the first file of a kind: a dataset full of them would flood the log."""
    if kind not in _warned:
        _warned.add(kind)
        logger.warning("%s; further files of this kind are not named", message)


def _status(path: str, named: str, missing: str) -> os.stat_result:
    """Call `os.stat`; if it fails, raise a DecodeError for the file `named`."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        raise DecodeError(named, missing) from None
    except OSError as error:  # the name is too long, the folder is not accessible, the storage is gone
        raise DecodeError(named, one_line(error)) from None


def _check_shard(file: ShardMember) -> None:
    """DecodeError if the shard has changed since it was indexed: its members may lie elsewhere now."""
    status = _status(file.shard, str(file), "no such shard")
    if (status.st_size, status.st_mtime_ns) != file.shard_state:
        raise DecodeError(str(file), "the shard has changed since it was indexed; start again to index it anew")
