"""What the page's addresses answer is what the models say, and videos come as browsers play them."""

import io
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import anyio
import av
import numpy as np
import pytest
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

import scripts.app.library as library_module
import scripts.app.playback as playback_module
import scripts.app.server as server_module
from inference.api import TrainedModel
from inference.search.index import VideoIndex
from inference.search.searcher import Hit, Searcher
from scripts.app.__main__ import PageServer, parse_arguments, prepare
from scripts.app.checkpoints import Checkpoints
from scripts.app.library import NAME_CHARACTERS
from scripts.app.safety import TEXT_CHARACTERS, address_of
from scripts.app.server import Page, make_app
from tests.scripts.app.asked import key_of, page_of, said, upload
from tests.scripts.app.conftest import SETTINGS
from tests.scripts.app.made import BROKEN, FAILED, ODD_NAME, Made

TEXT = "red grey grows. blue blue is still"


def test_a_search_finds_what_the_searcher_finds(client: TestClient, searcher: Searcher, made: Made) -> None:
    found = client.post("/search", json={"text": f"  {TEXT} "}).json()["hits"]
    expected = searcher.query(TEXT, SETTINGS.top, SETTINGS.rerank)
    assert len(found) == SETTINGS.top
    for hit, other in zip(found, expected, strict=True):
        assert made.videos / hit["name"] == Path(other.video)
        assert (hit["score"], hit["cosine"], hit["match_logit"]) == (other.score, other.cosine, other.match_logit)
        assert hit["probability"] == other.probability
        assert [tuple(frame) for frame in hit["frames"]] == list(other.frames)
        assert (hit["problem"] is None) == (hit["name"] != BROKEN) and str(made.videos) not in str(hit)
        assert client.get(f"/videos/{hit['key']}/still").status_code == (422 if hit["name"] == BROKEN else 200)


def test_the_page_tells_how_far_the_model_is(
    searcher: Searcher, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.reading.TELL_SECONDS", 0.0)
    told: list[str] = []
    note = Page._note

    def noted(page: Page, words: str) -> None:
        note(page, words)
        told.append(client.get("/progress").json()["doing"])

    monkeypatch.setattr(Page, "_note", noted)
    with TestClient(make_app(searcher, checkpoints, SETTINGS), base_url="http://localhost:7860") as client:
        assert client.get("/progress").json() == {"doing": ""}
        assert client.post("/search", json={"text": TEXT}).status_code == 200
        assert "encoding" in told and any(re.fullmatch(r"\d+ of \d+ frames", words) for words in told)
        assert client.get("/progress").json() == {"doing": ""}


def test_a_search_may_be_filtered(client: TestClient, searcher: Searcher) -> None:
    length = sorted(duration for duration in searcher.index.clips.duration if duration > 0)[2]
    where = f"duration>{length:.3f} folder=videos"
    found = client.post("/search", json={"text": TEXT, "where": where}).json()["hits"]
    expected = searcher.query(TEXT, SETTINGS.top, SETTINGS.rerank, where=where)
    assert [hit["cosine"] for hit in found] == [hit.cosine for hit in expected] and 0 < len(found)
    everything = client.post("/search", json={"text": TEXT, "where": ""}).json()["hits"]
    assert [hit["key"] for hit in everything] != [hit["key"] for hit in found]
    assert client.post("/search", json={"text": TEXT, "where": "tag=none"}).json()["hits"] == []
    refused = client.post("/search", json={"text": TEXT, "where": "duration>long"})
    assert refused.status_code == 422 and "the filter's part 'duration>long': 'long' is no time" in said(refused)
    assert client.post("/search", json={"text": TEXT, "where": 3}).status_code == 400


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
    monkeypatch.setattr(library_module, "write_copy", lambda path, *rest: (copied.append(path), write(path, *rest)))
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


@pytest.mark.parametrize(("probability", "expected"), [(0.3, True), (0.7, False), (None, True)])
def test_a_search_says_where_nothing_matches(
    client: TestClient, made: Made, monkeypatch: pytest.MonkeyPatch, probability: float | None, expected: bool
) -> None:
    hits = [
        Hit(str(made.videos / name), None, None, 0.9, 0.9, probability=chance)
        for name, chance in (("0.mp4", 0.1), ("1.mp4", probability))
    ]
    monkeypatch.setattr(Searcher, "query", lambda *rest: hits)
    found = client.post("/search", json={"text": TEXT}).json()
    assert found["nothing_matches"] is expected
    assert [hit["probability"] for hit in found["hits"]] == [0.1, probability]


def test_what_the_models_do_not_read_of_a_text_is_said(client: TestClient) -> None:
    key, words = key_of(client, "0.mp4"), "red grey grows " * 400
    assert len(words) < TEXT_CHARACTERS
    for text, cut in ((TEXT, None), (words, "of these 1,200 words; the others have no effect")):
        told = [
            client.post("/search", json={"text": text}).json()["notice"],
            client.post(f"/videos/{key}/answer", json={"question": text}).json()["notice"],
            client.post(f"/videos/{key}/aggregation", json={"text": text}).json()["notice"],
        ]
        assert [notice and cut in notice for notice in told] == [cut and True] * 3


def test_videos_that_could_not_be_indexed_are_counted_and_named(client: TestClient, made: Made) -> None:
    page = client.get("/").text
    assert "8 of 9 videos in index" in page and "1 video could not be read" in page
    (item,) = [line for line in page.splitlines() if f"<b>{FAILED}</b>: " in line]
    assert str(made.videos) not in item and len(item) > 60
    assert FAILED not in {video["name"] for video in client.get("/videos").json()["videos"]}


def test_long_names_of_uploads_end_in_dots(client: TestClient, made: Made) -> None:
    content = (made.videos / "0.mp4").read_bytes()
    for length in (NAME_CHARACTERS, NAME_CHARACTERS + 1):
        sent = client.post("/uploads", params={"name": "n" * length}, content=content).json()["name"]
        assert len(sent) == NAME_CHARACTERS and sent.endswith("n" if length == NAME_CHARACTERS else "n…")


def test_ctrl_c_ends_a_copy(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a video that takes ten minutes to copy; what was written is gone, as is the page's folder."""
    begun, folders = threading.Event(), []

    def slow(path: Path, target: Path, recipe: object, beat: Callable[[], None]) -> None:
        target.write_bytes(b"half")
        folders.append(target.parent)
        begun.set()
        for _ in range(60_000):
            beat()
            time.sleep(0.01)

    monkeypatch.setattr(playback_module, "transcode", slow)
    server, bound = prepare(parse_arguments(["--port", "0", "--index", str(made.index)]))
    assert isinstance(server, PageServer)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    number = [Path(clip.video).name for clip in VideoIndex.open(made.index).clips].index(ODD_NAME)
    address = f"{address_of('127.0.0.1', bound)}/videos/index-{number}/prepare"
    statuses: list[int] = []

    def ask() -> None:
        sent = urllib.request.Request(address, b"{}", {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(sent)
        statuses.append(refused.value.code)

    while not server.started:
        time.sleep(0.01)
    asking = threading.Thread(target=ask)
    asking.start()
    assert begun.wait(60)
    told = time.monotonic()
    server.handle_exit(signal.SIGINT, None)
    thread.join(60)
    asking.join(60)
    assert time.monotonic() - told < 5 and statuses == [503]
    assert not folders[0].exists()


def test_ctrl_c_ends_a_search_between_two_videos(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    page, read = page_of(client), []

    def encode(self: TrainedModel, video: str, *part: object) -> None:
        read.append(video)
        page.ending.set()
        raise ValueError("is not read")

    monkeypatch.setattr(TrainedModel, "encode_tokens", encode)
    response = client.post("/search", json={"text": TEXT})
    assert response.status_code == 503 and said(response) == "the page is ending" and len(read) == 1
