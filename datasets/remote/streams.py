"""One try at reading a file elsewhere: its state, and its bytes, no fewer and no more than were promised.

`http` and `https` are read by `datasets.remote.web`, all other kinds by fsspec. Whoever reads gets every byte or a
`RemoteError`, which says whether another try may help.
"""

import errno
import hashlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.client import HTTPException
from typing import NamedTuple

from datasets.remote.addresses import WEB, scheme_of, scrubbed

CHUNK = 1 << 20
"""Bytes read at a time."""
PASSING_STATUS, LASTING_STATUS = (408, 425, 429), (501, 505, 511)
"""Answers of a server below 500 after which another try may help, and those from 500 on after which none will."""
LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENAMETOOLONG)
"""Errors of this machine's own disk and limits."""
CLIENTS = tuple("aiohttp botocore aiobotocore httpx httpx2 httpcore urllib3 requests fsspec gcsfs".split())
"""Libraries whose errors, unless they name a status, are errors of a connection."""
REMEDIES = {
    400: "check the address",
    401: "set the credentials that docs/DATASETS.md names under Videos elsewhere",
    403: "check the credentials, or sign the address again if it was signed",
    404: "check the address",
    410: "the file is gone; take it out of the list",
    416: "the file is shorter than it was; make the index again",
    429: "the server is asked too often; lower train.workers, or raise data.remote.tries",
}
LATER = "try again later, or raise data.remote.tries and data.remote.stall_seconds"


class RemoteError(Exception):
    """Why a file elsewhere cannot be read, in one line without secrets.

    Attributes:
        passing: whether another try may help.
        remedy: what the user can do.
        wait: how many seconds the server asks to wait, if it does.
    """

    def __init__(self, reason: str, *, passing: bool, remedy: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.passing, self.remedy, self.wait = reason, passing, remedy, wait


class Range(NamedTuple):
    """A part of a file: `size` bytes from byte `offset` on."""

    offset: int
    size: int


class State(NamedTuple):
    """A file's size in bytes (-1 if nobody says) and a number that changes with its contents."""

    size: int
    version: int


@dataclass(frozen=True)
class Body:
    """What is read of a file.

    Attributes:
        state: of the whole file, also where a part is read.
        size: how many bytes come; None if nobody says.
        chunks: the bytes. RemoteError if they are not as many as promised, or stop coming.
    """

    state: State
    size: int | None
    chunks: Iterator[bytes]


def open_body(address: str, stall_seconds: float, part: Range | None = None) -> AbstractContextManager[Body]:
    """Open a file elsewhere, or a part of it; nothing is read before `chunks` is. Raises RemoteError on entering."""
    # Both clients are imported where they are used: a run of local files needs neither.
    if scheme_of(address) in WEB:
        from datasets.remote.web import open_web

        return open_web(address, stall_seconds, part)

    from datasets.remote.filesystems import open_stored

    return open_stored(address, stall_seconds, part)


def version_of(text: str) -> int:
    """The number that stands for an ETag, a date or whatever else tells one state of a file from another."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


def status_error(status: int, reason: str, wait: float | None = None) -> RemoteError:
    """The error for an answer that is no success."""
    passing = status in PASSING_STATUS or (status >= 500 and status not in LASTING_STATUS)
    remedy = REMEDIES.get(status, LATER if passing else "ask who runs the server")
    return RemoteError(f"the server answers {status} {reason}".rstrip(), passing=passing, remedy=remedy, wait=wait)


def length_error(received: int, promised: int) -> RemoteError:
    """The error for a body that is not as long as promised."""
    found = f"only {received} bytes came" if received < promised else "more bytes came"
    return RemoteError(
        f"{found} where the server promised {promised}",
        passing=True,
        remedy=f"the server or a proxy is at fault; {LATER}",
    )


def stalled(seconds: float) -> RemoteError:
    """The error for a connection on which nothing comes."""
    return RemoteError(f"no byte came for {seconds:g} seconds", passing=True, remedy=LATER)


def as_remote_error(error: BaseException, address: str, stall_seconds: float) -> RemoteError:
    """What any client raised, as ours: by the status of a server, if some error in the chain names one."""
    if isinstance(error, RemoteError):
        return error
    text = " ".join(scrubbed(str(error), address).split())[:200] or type(error).__name__

    cause: BaseException | None = error
    while cause is not None:
        status = _status_of(cause)
        if status is not None and status >= 400:
            return status_error(status, f"({text})")
        cause = cause.__cause__

    if isinstance(error, TimeoutError | socket.timeout) or "timeout" in type(error).__name__.lower():
        return stalled(stall_seconds)
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return RemoteError(f"there is no such file ({text})", passing=False, remedy=REMEDIES[404])
    if isinstance(error, PermissionError):
        return RemoteError(f"it may not be read ({text})", passing=False, remedy=REMEDIES[403])
    if isinstance(error, ssl.SSLCertVerificationError):
        return RemoteError(text, passing=False, remedy="check the address, and the certificates of this machine")
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
        return RemoteError(f"no such host ({text})", passing=True, remedy="check the address and the network")
    if isinstance(error, OSError) and error.errno in LOCAL_ERRORS:
        return RemoteError(text, passing=False, remedy="make room, or set data.remote.cache_dir to another folder")

    of_a_client = type(error).__module__.partition(".")[0] in CLIENTS
    passing = isinstance(error, OSError | HTTPException | EOFError) or of_a_client
    return RemoteError(f"{type(error).__name__}: {text}", passing=passing, remedy=LATER if passing else REMEDIES[404])


def _status_of(error: BaseException) -> int | None:
    """The status of a server's answer, where the error of some client holds it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    found = (getattr(error, "status", None), getattr(error, "code", None), getattr(response, "status_code", response))
    return next((status for status in found if isinstance(status, int) and 100 <= status < 600), None)
