"""What the page refuses, and that nobody gets more than it shows."""

import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import scripts.app.library as library_module
from inference.search.searcher import Searcher
from scripts.app.checkpoints import Checkpoints
from scripts.app.safety import TEXT_CHARACTERS
from scripts.app.server import make_app
from tests.scripts.app.asked import assert_nothing_kept, key_of, page_of, said, upload
from tests.scripts.app.conftest import SETTINGS, UPLOAD_BYTES
from tests.scripts.app.made import ODD_NAME, Made

TEXT = "red grey grows. blue blue is still"


@pytest.fixture
def poor(searcher: Searcher) -> Iterator[TestClient]:
    """A page without a checkpoint that answers, of a model that merges nothing."""
    checkpoints = Checkpoints(searcher.model, {})
    checkpoints.that_merges = lambda: None  # type: ignore[method-assign]
    with TestClient(make_app(searcher, checkpoints, SETTINGS), base_url="http://localhost:7860") as client:
        yield client


@pytest.mark.parametrize(
    "content",
    [
        b"", b"hello", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '{video}'\n", b"\x89PNG\r\n\x1a\n" + bytes(100),
    ],
    ids=["empty", "text", "hls", "concat", "png"],
)  # fmt: skip
def test_uploads_that_are_no_videos_are_refused(client: TestClient, made: Made, content: bytes) -> None:
    """Whatever they are called; lists of files that lie here are not followed."""
    content = content.replace(b"{video}", str(made.videos / "0.mp4").encode())
    message = said(client.post("/uploads", params={"name": "../a.mp4"}, content=content))
    assert message.startswith("a.mp4: cannot be read as a video (") and "testa-page" not in message
    assert_nothing_kept(client)


def test_sounds_and_pictures_are_no_uploads(client: TestClient, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    Image.new("RGB", (32, 32)).save(tmp_path / "picture.png")
    for name in ("sound.mp4", "picture.png"):
        assert "cannot be read as a video" in said(client.post("/uploads", content=(tmp_path / name).read_bytes()))
    assert_nothing_kept(client)


def test_uploads_have_a_size_whatever_their_headers_say(client: TestClient, made: Made) -> None:
    """What is sent in pieces has no length, and one byte too many is too many."""
    small = (made.videos / "0.mp4").read_bytes()

    def padded(size: int) -> Iterator[bytes]:
        yield small
        yield bytes(size - len(small))

    assert client.post("/uploads", content=padded(UPLOAD_BYTES)).status_code == 201
    for folder in page_of(client).library.folder.iterdir():
        folder.unlink()
    refused = client.post("/uploads", content=padded(UPLOAD_BYTES + 1))
    assert refused.status_code == 413 and "is larger than" in said(refused)
    assert_nothing_kept(client)


def test_the_oldest_uploads_and_their_copies_leave(
    client: TestClient, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "UPLOADS_KEPT", 2)
    keys = []
    for _ in range(3):
        keys.append(upload(client, (made.videos / ODD_NAME).read_bytes(), "<i>/a.mkv"))
        assert client.post(f"/videos/{keys[-1]}/prepare", json={}).json()["is_copy"]
    assert [client.get(f"/videos/{key}/file").status_code for key in keys] == [404, 200, 200]
    kept = {path.name for path in page_of(client).library.folder.iterdir()}
    assert kept == {name for key in keys[1:] for name in (key, f"{key}.copy.mp4")}


def test_what_comes_in_is_gone_when_the_page_ends(searcher: Searcher, checkpoints: Checkpoints, made: Made) -> None:
    with TestClient(make_app(searcher, checkpoints, SETTINGS), base_url="http://localhost") as client:
        upload(client, (made.videos / "0.mp4").read_bytes())
        folder = page_of(client).library.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_texts_have_a_length_and_are_json(client: TestClient) -> None:
    for sent in ({}, {"text": " "}, {"text": 3}, {"text": ["a"]}):
        assert "there is no description" in said(client.post("/search", json=sent))
    assert client.post("/search", json={"text": "a" * TEXT_CHARACTERS}).status_code == 200
    assert client.post("/search", json={"text": "a" * (TEXT_CHARACTERS + 1)}).status_code == 413
    assert client.post("/search", json={"text": "a" * 10**6}).status_code == 413
    assert client.post("/search", content=b'{"text": "a"}').status_code == 415
    for content in (b"{", b"[]", b"\xff", b"[" * 60_000):
        response = client.post("/search", content=content, headers={"Content-Type": "application/json"})
        assert response.status_code == 400
    key = key_of(client, "0.mp4")
    assert client.post(f"/videos/{key}/answer", json={"question": ""}).status_code == 400
    assert client.post(f"/videos/{key}/caption", json={"start": "now"}).status_code == 400
    assert "start" in said(client.post(f"/videos/{key}/caption", json={"start": 3, "end": 2}))
    assert "lies behind" in said(client.post(f"/videos/{key}/caption", json={"start": 30}))
    assert [client.get(f"/videos?first={first}").status_code for first in ("-1", "x", "nan", "1e99")] == [400] * 4


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.2"])
def test_other_names_than_its_own_are_not_served(client: TestClient, host: str) -> None:
    """A site that has its name point to this machine reads nothing."""
    assert client.get("/", headers={"Host": host}).status_code == 400
    assert client.post("/search", json={"text": TEXT}, headers={"Host": host}).status_code == 400
    assert client.get("/", headers={"Host": "127.0.0.1:9"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:7860"}, 200),
        ({}, 200),
    ],
)  # fmt: skip
def test_other_sites_make_it_do_nothing(
    client: TestClient, headers: dict[str, str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    monkeypatch.setattr(Searcher, "query", lambda self, text, *rest: searched.append(text) or [])
    assert client.post("/search", json={"text": TEXT}, headers=headers).status_code == status
    assert bool(searched) == (status == 200)


def test_every_answer_forbids_what_is_not_from_here(client: TestClient) -> None:
    for response in (client.get("/"), client.get("/no"), client.get("/static/page.js"), client.post("/search")):
        assert response.headers["content-security-policy"].startswith("default-src 'self';")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
    page = client.get("/").text
    assert re.findall(r"<script(?! src=\"/static/)|<style|\s(style|on\w+)=|https?://", page) == []
    for name in ("page.js", "page.css"):
        assert not re.search(r"https?://|innerHTML|url\(", client.get(f"/static/{name}").text)


def test_the_page_says_which_checkpoint_is_missing(client: TestClient, poor: TestClient) -> None:
    assert "data-missing" not in client.get("/").text
    page = poor.get("/").text
    assert re.findall(r'data-missing="(\w+)"', page) == ["answer", "aggregation"]
    assert "one fine-tuned by train_vqa.py" in page and 'id="answer"' not in page and 'id="caption"' in page
    key = key_of(poor, "0.mp4")
    assert "--answer, one fine-tuned by" in said(poor.post(f"/videos/{key}/answer", json={"question": "what"}))
    assert "merges" in said(poor.post(f"/videos/{key}/aggregation", json={}))


def test_a_checkpoint_that_lacks_what_it_is_named_for_is_refused(searcher: Searcher, made: Made) -> None:
    with pytest.raises(ValueError, match="--caption .* of vqa cannot caption; give one fine-tuned by train_caption"):
        Checkpoints(searcher.model, {"caption": str(made.answering)})


def test_names_are_escaped(searcher: Searcher, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher.index, "folder", Path("/a/<i>&\"'"))
    with TestClient(make_app(searcher, checkpoints, SETTINGS), base_url="http://localhost") as client:
        assert "<title>Search &lt;i&gt;&amp;&#34;&#39;</title>" in client.get("/").text
        assert any(video["name"] == ODD_NAME for video in client.get("/videos").json()["videos"])
