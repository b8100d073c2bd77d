"""What tests ask a page for, and how they look at what it keeps."""

from httpx2 import Response
from starlette.testclient import TestClient

from scripts.app.server import Page


def key_of(client: TestClient, name: str) -> str:
    return next(video["key"] for video in client.get("/videos").json()["videos"] if video["name"] == name)


def upload(client: TestClient, content: bytes, name: str = "mine.mp4") -> str:
    sent = client.post("/uploads", params={"name": name}, content=content)
    assert sent.status_code == 201, sent.text
    return sent.json()["key"]


def said(response: Response) -> str:
    assert response.status_code >= 400
    return response.json()["error"]


def assert_nothing_kept(client: TestClient) -> None:
    library = page_of(client).library
    assert not list(library.folder.iterdir())


def page_of(client: TestClient) -> Page:
    home = next(route for route in client.app.routes if route.path == "/")  # type: ignore[attr-defined]
    return home.endpoint.__self__
