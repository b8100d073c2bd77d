"""The boxes of a file on the page: the right ones, on the frames that they belong to, or why there are none."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from starlette.testclient import TestClient

from datasets import decode, sampling
from datasets.objects.detections import Detection, choose_boxes
from datasets.objects.store import ObjectSettings, StoreWriter
from inference.search.searcher import Searcher
from scripts.app.boxes import SHOWN_PIXELS, PageBoxes, read_frames
from scripts.app.checkpoints import Checkpoints
from scripts.app.server import PageSettings, make_app
from scripts.parts.box_pictures import colour
from tests.scripts.app.asked import key_of, said, upload
from tests.scripts.app.browser import opened, served, started, until
from tests.scripts.app.conftest import UPLOAD_BYTES
from tests.scripts.app.made import ODD_NAME, Made

SIZE, TIMES = 32, SHOWN_PIXELS // 32
NUM_FRAMES = 3
BOX = (4.0, 8.0, 20.0, 28.0)


@pytest.fixture(scope="module")
def store(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boxes of 0.mp4, and of ODD_NAME, for which a detector failed: a dog that stays, and a cat on the second frame."""
    path = tmp_path_factory.mktemp("boxes") / "made.objects"
    settings = ObjectSettings(NUM_FRAMES, 2, SIZE, "squash", "uniform", "a test", {"dog": 1, "cat": 2})
    writer = StoreWriter(path, ["0.mp4", ODD_NAME], settings)
    dog, cat = Detection(1, BOX, 0.9), Detection(2, (22.0, 1.0, 30.0, 7.0), 0.8)
    writer.put(0, choose_boxes([[dog], [dog, cat], [dog]], 2), SIZE)
    writer.fail(1)
    writer.finish()
    return path


@pytest.fixture
def page(searcher: Searcher, checkpoints: Checkpoints, store: Path) -> Iterator[TestClient]:
    settings = PageSettings(
        host_names=["localhost"], upload_bytes=UPLOAD_BYTES, top=5, rerank=3, boxes=PageBoxes(store)
    )
    with TestClient(make_app(searcher, checkpoints, settings), base_url="http://localhost:7860") as client:
        yield client


def test_boxes_are_drawn_on_the_frames_that_they_are_of(page: TestClient, made: Made) -> None:
    (drawn,) = page.post(f"/videos/{key_of(page, '0.mp4')}/boxes", json={}).json()["drawings"]
    answer = page.get(drawn["address"])
    assert answer.headers["content-type"] == "image/png" and "boxes" in drawn["meaning"].lower()
    sheet = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
    assert sheet.shape == (SHOWN_PIXELS, 4 * SHOWN_PIXELS, 3)

    frames = decode.read_video(
        str(made.videos / "0.mp4"), SIZE, sampling.chooser("uniform", NUM_FRAMES, np.random.default_rng)
    )
    # Lines are two pixels thick, so that these places are on them however corners are rounded.
    left, top, right, bottom = (round(side * TIMES) for side in BOX)
    for frame, cell in enumerate(np.split(sheet[:, : NUM_FRAMES * SHOWN_PIXELS], NUM_FRAMES, axis=1)):
        for place in ((top, (left + right) // 2), (bottom - 1, (left + right) // 2), ((top + bottom) // 2, left)):
            assert tuple(cell[place]) == colour(1)
        assert (cell == colour(2)).all(axis=-1).any() == (frame == 1)
        # Below all boxes there is the frame itself, enlarged.
        plain = frames[frame].permute(1, 2, 0).numpy()[30, 24].astype(int)
        assert np.abs(cell[30 * TIMES + 3, 24 * TIMES + 3] - plain).max() <= 3
    path_of_the_dog = sheet[:, NUM_FRAMES * SHOWN_PIXELS :]
    assert tuple(path_of_the_dog[(top + bottom) // 2, (left + right) // 2]) == colour(1)


def test_a_video_without_boxes_says_so(page: TestClient, client: TestClient, made: Made) -> None:
    sent = upload(page, (made.videos / "0.mp4").read_bytes(), "0.mp4")
    for key, name in ((key_of(page, "1.mp4"), "1.mp4"), (key_of(page, ODD_NAME), ODD_NAME), (sent, "0.mp4")):
        answer = page.post(f"/videos/{key}/boxes", json={})
        assert answer.status_code == 422
        assert said(answer) == f"{name}: made.objects has no boxes of it; make them with prepare_objects"
    assert 'id="boxes-part"' in page.get("/").text and 'id="boxes-part"' not in client.get("/").text
    refused = client.post(f"/videos/{key_of(client, '0.mp4')}/boxes", json={})
    assert refused.status_code == 409 and "--objects" in said(refused)


def test_the_boxes_of_a_checkpoint_are_taken_where_no_file_is_named(
    searcher: Searcher, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PageBoxes.of(None, [searcher.model]) is None
    data = searcher.model.config.data
    for root, is_there in ((tmp_path, False), (store.parent, True)):
        monkeypatch.setitem(data.__dict__, "root", str(root))
        monkeypatch.setitem(data.__dict__, "objects", store.name)
        assert (PageBoxes.of(None, [searcher.model]) is not None) == is_there
    with pytest.raises(ValueError, match="there is no such file"):
        PageBoxes.of(tmp_path / "none.objects", [])


def test_a_crop_and_a_still_image_are_read_as_boxes_see_them(tmp_path: Path) -> None:
    """Of a wide picture that is red on the left and blue on the right, a crop shows both, up to its own edges."""
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, :32, 0] = wide[:, 32:, 2] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    settings = ObjectSettings(2, 1, 16, "crop", "uniform", "a test", {})
    frames = read_frames(str(tmp_path / "wide.png"), settings)
    assert frames.shape == (2, 16, 16, 3)
    assert (frames == wide[None, :, 24:40]).all()


def test_boxes_are_shown_in_a_browser(made: Made, store: Path) -> None:
    with started() as browser, served("--index", made.index, "--objects", store) as address:
        with opened(browser, address) as page:
            page.locator(".hit", has_text="0.mp4").click()
            page.click("text=Show boxes")
            expect(page.locator("#boxes-drawn img")).to_have_count(1)
            until(page, "document.querySelector('#boxes-drawn img').naturalWidth > 300")
            page.locator(".hit", has_text="1.mp4").click()
            expect(page.locator("#boxes-drawn img")).to_have_count(0)
            page.click("text=Show boxes")
            expect(page.locator("#boxes .status")).to_contain_text("made.objects has no boxes of it")
