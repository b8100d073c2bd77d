"""Who may talk to the page, and how much they may send: host names, origins, headers and sizes.

A page of another site that is open in the same browser must neither make this one do something (its POSTs are refused)
nor read from it under a name that it had pointed here (only known host names are served).
"""

import fcntl
import ipaddress
import json
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEBIBYTE = 2**20
TEXT_CHARACTERS = 40_000
"""More than a model reads; the page says which words it did."""
JSON_BYTES = 6 * TEXT_CHARACTERS + 4096
"""Room for so many characters, each escaped, and for what is sent beside them."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SIOCGIFADDR = 0x8915
"""Linux's number for asking for the IPv4 address of a network interface."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class SafetyMiddleware:
    """Refuses what another site's page asks for, and adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["method"] not in SAFE_METHODS and not _is_same_origin(Headers(scope=scope)):
            refusal = JSONResponse({"error": "refused: the request comes from another site's page"}, 403)
            await refusal(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)


def _is_same_origin(headers: Headers) -> bool:
    """Whether the page itself sends this, or a program that is no browser."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    # "null", which sandboxed pages and files send, has no host, and so is nobody's own.
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet. ValueError if that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ValueError(f"--host {host}: {error.strerror}; give an address or a name of this machine") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ValueError(f"--host {host} --port {port}: {error.strerror}; name others, or --port 0 for any") from None
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine reaches the socket."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def address_of(host: str, bound: socket.socket) -> str:
    """Where a browser finds the page."""
    return f"http://{_in_a_url(host)}:{bound.getsockname()[1]}"


def host_names(host: str, bound: socket.socket, more: list[str]) -> list[str]:
    """The names under which browsers may ask for the page; `more` are the user's own."""
    address = ipaddress.ip_address(bound.getsockname()[0])
    names = {*LOOPBACK_NAMES, _in_a_url(host.lower()), _in_a_url(str(address)), *(name.lower() for name in more)}
    if address.is_unspecified:
        own = socket.gethostname()
        names |= {own.lower(), socket.getfqdn().lower(), *interface_addresses()}
        try:
            names |= {_in_a_url(str(found[4][0])) for found in socket.getaddrinfo(own, None)}
        except socket.gaierror:  # a machine that does not know its own name has no more addresses to tell
            pass
    return sorted(names)


def interface_addresses() -> set[str]:
    """The IPv4 addresses of this machine's network interfaces; many machines resolve their own name to 127.0.1.1."""
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # an interface without such an address
                continue
            found.add(socket.inet_ntoa(answer[20:24]))
    return found


def _in_a_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def read_json(request: Request) -> dict[str, Any]:
    """The object that a request sends; HTTPException if it is none, or too large."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "not understood: send application/json")
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > JSON_BYTES:
            raise HTTPException(413, f"too much text; shorten it to {TEXT_CHARACTERS:,} characters")
    try:
        sent = json.loads(received)
    except (ValueError, RecursionError):
        raise HTTPException(400, "not understood: what was sent is no JSON") from None
    if not isinstance(sent, dict):
        raise HTTPException(400, "not understood: what was sent is no JSON object")
    return sent


def text_of(sent: dict[str, Any], name: str, what: str) -> str:
    """The text under a name of a sent object; `what` says to people what it is. HTTPException for none or too much."""
    text = sent.get(name)
    if not isinstance(text, str) or not text.strip():
        raise HTTPException(400, f"there is no {what}: write one")
    if len(text) > TEXT_CHARACTERS:
        raise HTTPException(413, f"the {what} has {len(text):,} characters; shorten it to {TEXT_CHARACTERS:,}")
    return text.strip()


async def write_limited(chunks: AsyncIterator[bytes], target: Path, most: int) -> None:
    """Write what comes to a new file; HTTPException as soon as it is more than `most` bytes, nothing is left then."""
    written = 0
    try:
        with target.open("xb") as file:
            async for chunk in chunks:
                written += len(chunk)
                if written > most:
                    raise HTTPException(413, f"the file is larger than {most / MEBIBYTE:g} MiB; give a shorter one")
                file.write(chunk)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
