"""A small server that speaks as much of the Hugging Face hub's protocol as a download needs."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Repositories = dict[str, dict[str, bytes]]


class StandInHub(ThreadingHTTPServer):
    """Serves `repositories` (name -> file -> content) and keeps the paths that were asked for in `asked`."""

    daemon_threads = True

    def __init__(self, repositories: Repositories) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        """What the hub knows of some paths of a repository, of which the hub's file system asks."""
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"POST {path}")
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["paths"]
        files = self.server.repositories[path.removeprefix("/api/models/").partition("/paths-info/")[0]]
        self.send(json.dumps([self.entry(name, files[name]) for name in asked if name in files]).encode())

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        for name, files in self.server.repositories.items():
            if path == f"/api/models/{name}/revision/main" or path == f"/api/models/{name}":
                return self.send(json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode())
            if path.startswith(f"/api/models/{name}/tree/"):
                return self.send(json.dumps([self.entry(*item) for item in files.items()]).encode())
            for revision in ("main", COMMIT):
                file = path.removeprefix(f"/{name}/resolve/{revision}/")
                if file in files:
                    return self.send(files[file])
        return self.send(b"", status=200 if path == "/" else 404)

    @staticmethod
    def entry(name: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def send(self, content: bytes, status: int = 200) -> None:
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if part is not None and status == 200:
            content, status = content[int(part[1]) : int(part[2]) + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(repositories: Repositories) -> Iterator[StandInHub]:
    """A hub that is reachable until the end of the block."""
    with StandInHub(repositories) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
