"""Reading over http and https, with the lengths of bodies checked.

By the standard library, since no client behind fsspec tells a body that is longer than its Content-Length from one that
is as long, and since a forked worker inherits no thread from it. What fsspec is configured to send to servers of a kind
(`FSSPEC_HTTPS_HEADERS`) is sent here too.
"""

import base64
import email.utils
import json
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from socket import socket
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from datasets.remote.addresses import WEB
from datasets.remote.streams import (
    CHUNK,
    Body,
    Range,
    RemoteError,
    State,
    as_remote_error,
    length_error,
    status_error,
    version_of,
)

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 10
SURPLUS_SECONDS = 0.5
"""How long to wait, after the last byte that was promised, for the connection to end or for a byte too many."""
LONGEST_WAIT = 60.0
"""The most seconds that a server may ask us to wait."""


@contextmanager
def open_web(address: str, stall_seconds: float, part: Range | None = None) -> Iterator[Body]:
    """Open a file, or a part of it, as `datasets.remote.streams.open_body` says."""
    opened: list[HTTPConnection | HTTPResponse] = []
    try:
        try:
            response, connected = _answer(address, stall_seconds, part, opened)
            body = _body(response, connected, part, address, stall_seconds)
        except (OSError, HTTPException, ValueError) as error:
            raise as_remote_error(error, address, stall_seconds) from None
        yield body
    finally:
        for each in opened:
            each.close()


def _answer(
    address: str, stall_seconds: float, part: Range | None, opened: list[HTTPConnection | HTTPResponse]
) -> tuple[HTTPResponse, socket]:
    """The answer of the last server that others refer to, and its connection; `opened` gets what is to be closed."""
    url, host = address, urlsplit(address).netloc
    for _ in range(MOST_REDIRECTS):
        parts = urlsplit(url)
        headers = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "fsspec"}
        if part is not None:
            headers["Range"] = f"bytes={part.offset}-{part.offset + part.size - 1}"
        if parts.netloc == host:  # whom we are referred to is sent no credentials
            headers |= _credentials(parts)

        connection, target = _connection(parts, stall_seconds, headers)
        opened.append(connection)
        connection.connect()
        connected = connection.sock
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        opened.append(response)
        location = response.headers.get("Location")
        if response.status not in REDIRECTS or location is None:
            _check_status(response, part)
            return response, connected

        url = urljoin(url, location)
        if urlsplit(url).scheme not in WEB:
            raise RemoteError("the server refers to what is no web address", passing=False, remedy="check the address")
    raise RemoteError("the server refers to itself without end", passing=False, remedy="check the address")


def _connection(parts: SplitResult, stall_seconds: float, headers: dict[str, str]) -> tuple[HTTPConnection, str]:
    """A connection, through a proxy where the environment names one, and what to ask for on it."""
    host = parts.hostname
    if not host:
        raise RemoteError("it names no host", passing=False, remedy="check the address")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = quote(parts.path or "/", safe="/%!$&'()*+,;=:@~") + (f"?{parts.query}" if parts.query else "")
    context = ssl.create_default_context() if parts.scheme == "https" else None

    proxy = getproxies().get(parts.scheme)
    if proxy is None or proxy_bypass(host):
        if context is not None:
            return HTTPSConnection(host, port, timeout=stall_seconds, context=context), target
        return HTTPConnection(host, port, timeout=stall_seconds), target

    through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    of_proxy = {f"Proxy-{name}": value for name, value in _basic(through).items()}
    place = (through.hostname or "", through.port or 80)
    if context is None:
        headers |= of_proxy
        return HTTPConnection(*place, timeout=stall_seconds), f"http://{parts.netloc.rpartition('@')[2]}{target}"
    tunnel = HTTPSConnection(*place, timeout=stall_seconds, context=context)
    tunnel.set_tunnel(host, port, of_proxy)
    return tunnel, target


def _credentials(parts: SplitResult) -> dict[str, str]:
    """The headers that let us in: those of fsspec's configuration, and the user in the address."""
    from fsspec.config import conf

    configured = conf.get(parts.scheme, {}).get("headers", {})
    if isinstance(configured, str):  # a variable of the environment
        configured = json.loads(configured)
    return {**configured, **_basic(parts)}


def _basic(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


def _check_status(response: HTTPResponse, part: Range | None) -> None:
    if response.status >= 300:
        raise status_error(response.status, response.reason, _asked_to_wait(response))
    if part is not None and response.status != 206:
        raise RemoteError(
            "the server sends no parts of files", passing=False, remedy="download the shards, and name their files"
        )
    if response.status not in (200, 206):
        raise status_error(response.status, response.reason)
    if response.headers.get("Content-Encoding", "identity") not in ("identity", ""):
        raise RemoteError(
            "the server sends it compressed, though asked not to", passing=False, remedy="ask who runs the server"
        )


def _asked_to_wait(response: HTTPResponse) -> float | None:
    """The seconds of a Retry-After header, which may be a date."""
    text = response.headers.get("Retry-After", "")
    if re.fullmatch(r"\d{1,6}", text):
        return min(float(text), LONGEST_WAIT)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(max(date.timestamp() - time.time(), 0.0), LONGEST_WAIT)


def _body(response: HTTPResponse, connected: socket, part: Range | None, address: str, stall_seconds: float) -> Body:
    headers = response.headers
    size, whole = response.length, response.length
    if part is not None:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
        if found is None or int(found[1]) != part.offset or int(found[2]) != part.offset + part.size - 1:
            raise RemoteError(
                "the server sends another part than asked for",
                passing=False,
                remedy="make the index of the shards again",
            )
        whole = None if found[3] == "*" else int(found[3])
        size = part.size if size is None else size
        if size != part.size:
            raise length_error(size, part.size)

    version = headers.get("ETag") or headers.get("Content-MD5") or headers.get("Last-Modified") or ""
    state = State(-1 if whole is None else whole, version_of(version))
    return Body(state, size, _chunks(response, connected, size, address, stall_seconds))


def _chunks(
    response: HTTPResponse, connected: socket, size: int | None, address: str, stall_seconds: float
) -> Iterator[bytes]:
    """The bytes of a body; RemoteError if they end before `size` are there, or do not end after it."""
    try:
        if response.chunked or size is None:
            while piece := response.read(CHUNK):  # a cut is noticed where the body is in chunks
                yield piece
            return

        # Not by `response.read`, which stops at the promised length and would not see a byte more.
        file, left = response.fp, size
        while left:
            piece = file.read1(min(left, CHUNK))
            if not piece:
                raise length_error(size - left, size)
            left -= len(piece)
            yield piece

        connected.settimeout(SURPLUS_SECONDS)
        try:
            surplus = file.read1(1)
        except OSError:  # the server leaves the connection open, or ends it rudely: all bytes are there
            return
        if surplus:
            raise length_error(size + 1, size)
    except (OSError, HTTPException, ValueError) as error:
        raise as_remote_error(error, address, stall_seconds) from None
