"""A web server for tests, in threads, that fails, stalls, cuts off and lies about lengths as a test asks it to."""

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

STALL_SECONDS = 30.0


class UnreliableServer(ThreadingHTTPServer):
    """Serves `files` (path -> content); `faults` (path -> list) says what is wrong with the next answers for a path.

    A fault is a status such as 503, or `stall` (after half of the body), `silent` (no answer at all), `cut` (half of
    the body, then the end), `short` and `long` (a Content-Length ten bytes above or below the body's), `no_length`,
    `no_ranges`, or `to:URL` for a redirect. The last one of a list repeats if it ends in `*`.

    Attributes:
        asked: how often each path was asked for.
        headers: those of the last request for each path.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}
        self.ended = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault_of(self, path: str) -> str:
        """What is wrong with the next answer; empty for nothing."""
        faults = self.faults.get(path, [])
        if not faults:
            return ""
        return faults[0].removesuffix("*") if faults[0].endswith("*") else faults.pop(0)


class _Handler(BaseHTTPRequestHandler):
    server: UnreliableServer

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.server.asked[path] += 1
        self.server.headers[path] = dict(self.headers)
        content = self.content(path)
        fault = self.server.fault_of(path)
        if fault == "silent":
            self.server.ended.wait(STALL_SECONDS)
        elif fault.isdigit():
            self.send(int(fault), b"", {"Retry-After": "0"})
        elif fault.startswith("to:"):
            self.send(302, b"", {"Location": fault.removeprefix("to:")})
        elif content is None:
            self.send(404, b"")
        else:
            self.send_content(content, fault)

    def content(self, path: str) -> bytes | None:
        """The file at a path, or a folder's page of links."""
        if path in self.server.files:
            return self.server.files[path]
        folder = f"{path.rstrip('/')}/".lstrip("/")
        below = [name.removeprefix(folder) for name in self.server.files if name.startswith(folder)]
        if not below:
            return None
        names = sorted({re.match(r"[^/]*/?", name)[0] for name in below})  # type: ignore[index]
        return "".join(f'<a href="{quote(name)}">{name}</a>\n' for name in names).encode()

    def send_content(self, content: bytes, fault: str) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Content-Type": "text/html"}
        status, body = 200, content
        if asked and fault != "no_ranges":
            first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            status, body = 206, content[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"

        length = {"short": len(body) + 10, "long": len(body) - 10}.get(fault, len(body))
        if fault != "no_length":
            headers["Content-Length"] = str(length)
        if fault in ("stall", "cut"):
            self.send(status, body[: len(body) // 2], headers)
            self.wfile.flush()
            if fault == "stall":
                self.server.ended.wait(STALL_SECONDS)
        else:
            self.send(status, body, headers)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Connection": "close", **(headers or {})}.items():
            self.send_header(name, value)
        if not headers or "Content-Length" not in headers:
            self.close_connection = True
        self.end_headers()
        if self.command == "GET":
            with suppress(BrokenPipeError, ConnectionResetError):  # who asked has seen enough
                self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[UnreliableServer]:
    """A server that answers until the end of the block."""
    with UnreliableServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()
            time.sleep(0)
