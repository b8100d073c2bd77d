"""What the page's addresses answer is what the models say, and videos come as browsers play them."""

import io
from pathlib import Path

import anyio
import av
import numpy as np
import pytest
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

import scripts.page.library as library_module
import scripts.page.server as server_module
from models.api import TrainedModel
from scripts.page.checkpoints import Checkpoints
from scripts.page.server import Page
from scripts.video_search.searcher import Searcher
from tests.scripts.page.asked import key_of, said, upload
from tests.scripts.page.conftest import SETTINGS
from tests.scripts.page.made import BROKEN, ODD_NAME, Made

TEXT = "red grey grows. blue blue is still"


def test_a_search_finds_what_the_searcher_finds(client: TestClient, searcher: Searcher, made: Made) -> None:
    found = client.post("/search", json={"text": f"  {TEXT} "}).json()["hits"]
    expected = searcher.query(TEXT, SETTINGS.top, SETTINGS.rerank)
    assert len(found) == SETTINGS.top
    for hit, other in zip(found, expected, strict=True):
        assert made.videos / hit["name"] == Path(other.video)
        assert (hit["score"], hit["cosine"], hit["match_logit"]) == (other.score, other.cosine, other.match_logit)
        assert [tuple(frame) for frame in hit["frames"]] == list(other.frames)
        assert (hit["problem"] is None) == (hit["name"] != BROKEN) and str(made.videos) not in str(hit)
        assert client.get(f"/videos/{hit['key']}/still").status_code == (422 if hit["name"] == BROKEN else 200)


def test_answers_captions_and_pictures_are_those_of_the_models(
    client: TestClient, checkpoints: Checkpoints, made: Made
) -> None:
    """Of a video of the index, a part of it, and the same file when it is sent."""
    path, question = made.videos / "3.mp4", "what colour is it"
    answering = checkpoints.that_can("answer")
    assert answering is not None and answering is not checkpoints.search
    for key in (key_of(client, "3.mp4"), upload(client, path.read_bytes())):
        for part in ({}, {"start": 0.2, "end": 0.5}):
            told = client.post(f"/videos/{key}/answer", json={"question": question, **part}).json()
            assert told["answer"] == answering.answer(path, question, **part)
            told = client.post(f"/videos/{key}/caption", json=part).json()
            assert told["caption"] == checkpoints.search.caption(path, **part)
    drawn = client.post(f"/videos/{key}/aggregation", json={"text": "red"}).json()["drawings"]
    assert [drawing["address"].rpartition("/")[2] for drawing in drawn][:2] == ["regions.png", "grounding.png"]
    for drawing in drawn:
        picture = client.get(drawing["address"])
        assert picture.headers["content-type"] == "image/png" and drawing["meaning"]
        assert np.asarray(Image.open(io.BytesIO(picture.content)).convert("L")).std() > 5
    without = client.post(f"/videos/{key}/aggregation", json={"text": ""}).json()["drawings"]
    assert len(without) == len(drawn) - 1
    other = drawn[0]["address"].replace("regions.png", "regions.mp4")
    for address in (other, "/drawings/x/regions.png", drawn[0]["address"].replace("regions", "..%2fregions")):
        assert client.get(address).status_code == 404


def test_a_part_of_a_video_is_asked_about_as_such(
    client: TestClient, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def recorded(model: TrainedModel, *arguments: object) -> str:
        asked.append(arguments)
        raise ValueError("enough")

    for method in ("answer", "caption", "read_video"):
        monkeypatch.setattr(TrainedModel, method, recorded)
    path, key, part = made.videos / "1.mp4", key_of(client, "1.mp4"), {"start": 0.2, "end": 0.5}
    for what, sent in (("answer", {"question": "who"}), ("caption", {}), ("aggregation", {})):
        assert said(client.post(f"/videos/{key}/{what}", json={**sent, **part})) == "enough"
    assert asked == [(path, "who", 0.2, 0.5), (path, 0.2, 0.5), (str(path), 0.2, 0.5)]


def test_videos_are_served_in_ranges(client: TestClient, made: Made) -> None:
    whole, key = (made.videos / "0.mp4").read_bytes(), key_of(client, "0.mp4")
    assert "choose it again" in said(client.get(f"/videos/{key}/file"))
    assert client.post(f"/videos/{key}/prepare", json={}).json() == {"media_type": "video/mp4", "is_copy": False}
    file = client.get(f"/videos/{key}/file")
    assert file.content == whole and file.headers["content-type"] == "video/mp4"
    part = client.get(f"/videos/{key}/file", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert client.get(f"/videos/{key}/file", headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


def test_what_browsers_do_not_play_is_copied_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[Path] = []
    write = library_module.write_copy
    monkeypatch.setattr(library_module, "write_copy", lambda path, copy: (copied.append(path), write(path, copy)))
    key = key_of(client, ODD_NAME)
    for _ in range(2):
        prepared = client.post(f"/videos/{key}/prepare", json={}).json()
        assert prepared == {"media_type": "video/mp4", "is_copy": True}
    assert len(copied) == 1
    with av.open(io.BytesIO(client.get(f"/videos/{key}/file").content)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.codec.canonical_name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert sum(1 for _ in container.decode(stream)) == 20


def test_a_file_that_cannot_be_read_is_named_as_people_know_it(client: TestClient, made: Made) -> None:
    key = key_of(client, BROKEN)
    question = {"question": "what"}
    for what, sent in (("prepare", {}), ("answer", question), ("caption", {}), ("aggregation", {})):
        message = said(client.post(f"/videos/{key}/{what}", json=sent))
        assert message.startswith(f"{BROKEN}: cannot be read") and "give another file" in message
        assert str(made.videos) not in message


@pytest.mark.parametrize(
    "key",
    ["index-8", "index--1", "index-", "index-1.0", "index-٣", "index-99999999999999", "upload-0", "..", "..%2f0.mp4",
     "%2fetc%2fpasswd", "0.mp4"],
)  # fmt: skip
def test_only_videos_of_the_index_and_uploads_are_there(client: TestClient, key: str) -> None:
    for address in ("file", "still"):
        assert client.get(f"/videos/{key}/{address}").status_code == 404


def test_no_file_beside_the_static_ones_is_served(client: TestClient) -> None:
    assert client.get("/static/page.css").status_code == 200
    for path in ("../server.py", "..%2fserver.py", "%2e%2e/server.py", "/etc/passwd", "", "."):
        assert client.get(f"/static/{path}").status_code == 404


def test_models_do_one_thing_at_a_time_and_few_wait(
    searcher: Searcher, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MOST_WAITING", 3)
    page, running, most, refused = Page(searcher, checkpoints, SETTINGS), [0], [0], []

    def work() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        anyio.from_thread.run(anyio.sleep, 0.02)
        running[0] -= 1

    async def ask() -> None:
        try:
            await page._compute(work)
        except HTTPException as error:
            refused.append(error.status_code)

    async def ask_often() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)
        await page._compute(work)  # all have left

    anyio.run(ask_often)
    assert (most, refused) == ([1], [503, 503])


def test_the_page_lives_while_a_model_computes(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caption in whose midst the page itself is asked for."""
    seen: list[int] = []

    def slow(model: TrainedModel, *arguments: object) -> str:
        seen.append(client.get("/").status_code)
        return "a caption"

    monkeypatch.setattr(TrainedModel, "caption", slow)
    key = key_of(client, "0.mp4")
    assert client.post(f"/videos/{key}/caption", json={}).json()["caption"] == "a caption" and seen == [200]
