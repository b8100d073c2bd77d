"""A file elsewhere as an open file that seeks: only what is read is fetched, some kilobytes at a time."""

import io
from typing import Any, BinaryIO

from datasets.remote.addresses import is_address, shown
from datasets.remote.fetch import look_at, tried_with
from datasets.remote.streams import Range, RemoteError, State, open_body

READ_AHEAD = 1 << 16
"""Bytes of a request: the headers and texts of several samples, and little of a video."""


class _Elsewhere(io.RawIOBase):
    """The bytes of a file elsewhere, each read a request. OSError if it changes meanwhile or cannot be had."""

    def __init__(self, address: str, state: State) -> None:
        self._address, self._state, self._position = address, state, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._state.size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._state.size - self._position)
        if size <= 0:
            return 0

        def read(stall_seconds: float) -> bytes:
            with open_body(self._address, stall_seconds, Range(self._position, size)) as body:
                if body.state != self._state:
                    raise RemoteError("it changed while it was read", passing=False, remedy="start again")
                return b"".join(body.chunks)

        try:
            found = tried_with(self._address, read)
        except RemoteError as error:
            raise OSError(str(error)) from None
        buffer[:size] = found
        self._position += size
        return size


def open_seekable(path: str) -> BinaryIO:
    """Open a file on this machine or elsewhere for reading. OSError if it is not there, ValueError for its address."""
    if not is_address(path):
        return open(path, "rb")
    try:
        state = look_at(path)
    except RemoteError as error:
        raise ValueError(f"{shown(path)}: {error}") from None
    if state.size < 0:
        raise ValueError(f"{shown(path)}: the server does not say how long it is; download the shards")
    return io.BufferedReader(_Elsewhere(path, state), READ_AHEAD)
