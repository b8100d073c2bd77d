"""The page in a real browser: what people do with it, by mouse and by keyboard, and what they see."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from inference.api import TrainedModel, load_model
from inference.search.searcher import Searcher
from tests.scripts.app.browser import found, opened, played, served, started, until
from tests.scripts.app.made import BROKEN, ODD_NAME, Made

TEXT = "red grey grows. blue blue is still"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(made: Made) -> Iterator[str]:
    with served("--index", made.index, "--answer", made.answering, "--top", 8, "--max-upload-mib", 0.125) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        yield page


@pytest.fixture(scope="module")
def answering(made: Made) -> TrainedModel:
    return load_model(made.answering, device="cpu")


def choose(page: Page, name: str) -> None:
    page.locator(".hit", has_text=name).click()
    page.wait_for_selector("#screen video")


def test_a_search_shows_the_best_first_and_plays_where_it_matches(page: Page, made: Made) -> None:
    expected = Searcher.open(made.index).query(TEXT, 8, 8)
    assert found(page, TEXT) == [Path(hit.video).name for hit in expected]
    expect(page.locator("#stage-name")).to_have_text(Path(expected[0].video).name)
    latest = max((hit for hit in expected if hit.frames), key=lambda hit: hit.frames[0][0])
    choose(page, Path(latest.video).name)
    assert latest.frames[0][0] > 0.5 and played(page) >= latest.frames[0][0]
    note = "(event) => { window.sought = event.target.currentTime; }"
    page.evaluate(f"() => {{ document.querySelector('#screen video').onseeking = {note}; }}")
    expect(page.locator(".moment")).to_have_count(len(latest.frames))
    for place in reversed(range(len(latest.frames))):
        page.locator(".moment").nth(place).click()
        until(page, f"Math.abs(window.sought - {latest.frames[place][0]}) < 0.01")
    assert played(page) >= latest.frames[0][0]
    assert page.locator(".hit", has_text=BROKEN).locator(".problem").text_content().startswith(f"{BROKEN}: cannot be")


def test_a_filter_says_what_it_does_not_understand(page: Page, made: Made) -> None:
    page.locator(".filter summary").click()
    page.fill("#where", f"folder={made.videos.name} colour=red")
    page.fill("#paragraph", TEXT)
    page.locator("#search button").click()
    expect(page.locator("#search .status.wrong")).to_contain_text("'colour=red'")
    page.fill("#where", "tag=none")
    page.locator("#search button").click()
    expect(page.locator("#results-facts")).to_contain_text("0 of")
    expect(page.locator(".hit")).to_have_count(0)


def test_a_hit_says_which_moment_was_found_and_plays_from_there(page: Page) -> None:
    """As the server answers where an index has windows."""
    scores = {"score": 0.3, "cosine": 0.3, "match_logit": None, "probability": 0.9, "frames": [], "problem": None}
    key = {"key": "index-3", "name": "lecture.mp4", "is_image": False}
    parts = [(0.5, 1.25), (1.0, None), (None, None)]
    hits = [{**key, **scores, "start": start, "end": end} for start, end in parts]
    answer = {"hits": hits, "nothing_matches": False, "notice": None, "seconds": 0.1}
    page.route("**/search", lambda route: route.fulfill(json=answer))
    page.fill("#paragraph", TEXT)
    page.press("#paragraph", "Enter")
    expect(page.locator("#why")).to_have_text("0:00.5 to 0:01.3 · cosine 0.30")
    assert page.locator(".hit .part").all_text_contents() == ["0:00.5 to 0:01.3", "0:01.0 to the end", ""]
    page.wait_for_selector("#screen video")
    until(page, "document.querySelector('#screen video').currentTime >= 0.5")
    page.locator(".hit").nth(1).click()
    expect(page.locator("#why")).to_have_text("0:01.0 to the end · cosine 0.30")


def test_questions_captions_and_aggregation(page: Page, made: Made, answering: TrainedModel) -> None:
    choose(page, "3.mp4")
    page.fill("#question", "what colour is it?")
    page.press("#question", "Enter")
    expect(page.locator("#answers dd")).to_have_text(answering.answer(made.videos / "3.mp4", "what colour is it?"))
    page.click("text=Write a caption")
    expect(page.locator("#written")).to_have_text(load_model(made.searching).caption(made.videos / "3.mp4"))
    page.fill("#phrase", "blue")
    page.click("text=Draw")
    expect(page.locator("#drawings img")).to_have_count(4)
    until(page, "[...document.querySelectorAll('#drawings img')].every((one) => one.naturalWidth > 300)")
    choose(page, "2.mp4")  # what was said of the one before is gone
    assert page.locator("#answers dd").count() + page.locator("#drawings img").count() == 0
    expect(page.locator("#written")).to_be_hidden()


def test_a_video_of_ones_own(page: Page, made: Made, answering: TrainedModel) -> None:
    page.set_input_files("#upload-file", made.videos / "5.mp4")
    expect(page.locator('.hit[aria-current="true"] .name')).to_have_text("5.mp4")
    page.wait_for_selector("#screen video")
    assert page.get_attribute("#screen video", "src").startswith("/videos/upload-")
    page.fill("#question", "does it move?")
    page.press("#question", "Enter")
    expect(page.locator("#answers dd")).to_have_text(answering.answer(made.videos / "5.mp4", "does it move?"))


def test_what_cannot_be_taken_is_said(page: Page, made: Made, tmp_path: Path) -> None:
    status = page.locator("#upload .status")
    page.set_input_files("#upload-file", made.videos / BROKEN)
    expect(status).to_contain_text(f"{BROKEN}: cannot be read as a video")
    (tmp_path / "long.mp4").write_bytes(bytes(200_000))
    page.set_input_files("#upload-file", tmp_path / "long.mp4")
    expect(status).to_contain_text("at most 0.125 are taken")
    page.locator(".hit", has_text=BROKEN).click()
    expect(page.locator("#screen-status")).to_contain_text(f"{BROKEN}: cannot be read")


def test_an_odd_name_is_text_and_an_odd_format_is_copied(page: Page) -> None:
    choose(page, ODD_NAME)
    expect(page.locator("#stage-name")).to_have_text(ODD_NAME)
    assert page.locator("#stage-name b, .hit b").count() == 0
    expect(page.locator("#copy")).to_be_visible()
    assert 0 < played(page) <= 2


def test_all_of_it_works_by_keyboard(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type(TEXT)
    page.keyboard.press("Enter")
    page.wait_for_selector(".rank:not(:empty)")
    for _ in range(9):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "hit":
            break
    page.keyboard.press("ArrowDown")
    second = page.locator(".hit").nth(1)
    expect(second).to_be_focused()
    page.keyboard.press("Enter")
    expect(second).to_have_attribute("aria-current", "true")
    expect(page.locator("#stage-name")).to_have_text(second.locator(".name").text_content())


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out_and_everything_has_a_name(browser: Browser, address: str, width: int) -> None:
    with opened(browser, address, viewport={"width": width, "height": 800}, color_scheme="dark") as page:
        found(page, TEXT)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        nameless = (
            "[...document.querySelectorAll('input, textarea, button, video')].filter((one) => one.checkVisibility()"
        )
        nameless += " && !one.labels?.length && !one.ariaLabel && !one.textContent.trim()).length"
        assert page.evaluate(nameless) == 0
        assert page.evaluate("[...document.images].filter((one) => one.getAttribute('alt') === null).length") == 0


def test_a_server_that_is_gone_is_said(browser: Browser, made: Made) -> None:
    """By a page without a checkpoint that answers, which has no form for questions."""
    with served("--index", made.index) as address, opened(browser, address) as page:
        assert page.locator('[data-missing="answer"]').count() == 1 and page.locator("#answer").count() == 0
        page.route("**/search", lambda route: route.abort())
        page.fill("#paragraph", TEXT)
        page.press("#paragraph", "Enter")
        expect(page.locator("#search .status")).to_contain_text("the server does not answer")
