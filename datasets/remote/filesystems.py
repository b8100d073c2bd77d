"""Reading through fsspec: s3, gs, hf, and whatever else it knows.

Each call runs in a thread that is given up if it stalls, since not every file system has a time limit of its own.
"""

import importlib.util
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from datasets.remote.addresses import PACKAGES, scheme_of
from datasets.remote.streams import (
    CHUNK,
    Body,
    Range,
    RemoteError,
    State,
    as_remote_error,
    length_error,
    stalled,
    version_of,
)

Result = TypeVar("Result")
MARKS = (
    *("ETag", "etag", "md5Hash", "generation", "xet_hash", "blob_id", "VersionId"),
    *("LastModified", "last_modified", "mtime", "updated", "created"),
)
"""What file systems call that which changes with a file's contents; the first that is there counts."""
READ_AT_ONCE = 4 * CHUNK
"""Bytes of one request."""


@contextmanager
def open_stored(address: str, stall_seconds: float, part: Range | None = None) -> Iterator[Body]:
    """Open a file, or a part of it, as `datasets.remote.streams.open_body` says."""
    with _patience(stall_seconds) as patient:
        try:
            files, path = patient(lambda: file_system(address))
            state = patient(lambda: state_of(files.info(path, refresh=True)))
            size = state.size if part is None else part.size
            if part is not None and 0 <= state.size < part.offset + part.size:
                raise RemoteError(
                    f"it has {state.size} bytes now", passing=False, remedy="make the index of the shards again"
                )
        except Exception as error:
            raise as_remote_error(error, address, stall_seconds) from None

        def chunks() -> Iterator[bytes]:
            try:
                yield from _read(files, path, part or Range(0, state.size), patient)
                # Requests of one file may have seen two states of it.
                if patient(lambda: state_of(files.info(path, refresh=True))) != state:
                    raise RemoteError("it changed while it was read", passing=True, remedy="write files once")
            except RemoteError:
                raise
            except Exception as error:
                raise as_remote_error(error, address, stall_seconds) from None

        yield Body(state, None if size < 0 else size, chunks())


def call_patiently(function: Callable[[], Result], address: str, stall_seconds: float) -> Result:
    """Call a function of a file system; RemoteError for whatever it raises, and if it takes too long."""
    with _patience(stall_seconds) as patient:
        try:
            return patient(function)
        except Exception as error:
            raise as_remote_error(error, address, stall_seconds) from None


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it. RemoteError if a package is missing."""
    package = PACKAGES[scheme_of(address)]
    if package is not None and importlib.util.find_spec(package) is None:
        raise RemoteError(
            f"{scheme_of(address)}:// takes the package {package}", passing=False, remedy=f"pip install {package}"
        )
    from fsspec.core import url_to_fs

    # Listings that are kept would hide that a file has changed.
    files, path = url_to_fs(address, use_listings_cache=False)
    return files, path


def state_of(info: dict[str, Any]) -> State:
    """The state of a file from what its file system says. RemoteError for a folder."""
    if info.get("type") == "directory":
        raise RemoteError("it is a folder", passing=False, remedy="name a file, or give the folder alone")
    mark = next((f"{name}={info[name]}" for name in MARKS if info.get(name) is not None), "")
    size = info.get("size")
    return State(-1 if size is None else int(size), version_of(mark))


def _read(files: Any, path: str, part: Range, patient: Callable[[Callable[[], Any]], Any]) -> Iterator[bytes]:
    """The bytes of a part, whose size is -1 if nobody knows it."""
    file = patient(lambda: files.open(path, "rb", block_size=READ_AT_ONCE, cache_type="none"))
    try:
        patient(lambda: file.seek(part.offset))
        received = 0
        while received != part.size:
            most = READ_AT_ONCE if part.size < 0 else min(part.size - received, READ_AT_ONCE)
            piece = patient(lambda: file.read(most))  # noqa: B023  # called before the next round
            if not piece:
                break
            received += len(piece)
            yield piece
        if part.size >= 0 and received != part.size:
            raise length_error(received, part.size)
    finally:
        file.close()


@contextmanager
def _patience(seconds: float) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """What calls a function in one thread after the other calls, and raises RemoteError if it takes too long."""
    asked: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def work() -> None:
        while (function := asked.get()) is not None:
            try:
                answers.put((True, function()))
            except BaseException as error:
                answers.put((False, error))

    # A daemon: one that hangs forever must not keep the process from ending.
    threading.Thread(target=work, daemon=True, name="fetching").start()

    def call(function: Callable[[], Any]) -> Any:
        asked.put(function)
        try:
            succeeded, answer = answers.get(timeout=seconds)
        except queue.Empty:
            raise stalled(seconds) from None
        if not succeeded:
            raise answer
        return answer

    try:
        yield call
    finally:
        asked.put(None)
