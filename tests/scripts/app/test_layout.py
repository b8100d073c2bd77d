"""Where things stand on the page, and how large, on a desk and on a telephone."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts.app.safety import TEXT_CHARACTERS
from scripts.app.server import described_hit
from tests.scripts.app.browser import found, opened, served, started
from tests.scripts.app.made import FAILED, ODD_NAME, Made

TEXT = "red grey grows. blue blue is still"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}
LONG_NAME = "a_name_without_a_space_" * 12 + ".mp4"
READABLE = 14
"""Pixels of a letter's box that a telephone needs at least."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(made: Made) -> Iterator[str]:
    with served("--index", made.index, "--answer", made.answering, "--top", 8) as address:
        yield address


@pytest.fixture
def probabilities(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """What the page is told of the hits, the first first."""
    told: list[float | None] = []

    def changed(*arguments: Any) -> dict[str, Any]:
        return described_hit(*arguments) | {"probability": told.pop(0)}

    monkeypatch.setattr("scripts.app.server.described_hit", changed)
    return told


def top(page: Page, selector: str) -> float:
    box = page.locator(selector).first.bounding_box()
    assert box is not None, selector
    return box["y"]


def test_bars_have_one_scale(browser: Browser, address: str, probabilities: list[float | None]) -> None:
    shares = [0.995, 0.75, 0.5, 0.25, 0.001, 0.0, 0.4, 0.3]
    with opened(browser, address, viewport=DESK) as page:
        for given in (shares, shares[::-1], [None, *shares[1:]]):
            probabilities[:] = given
            found(page, TEXT)
            bars = page.evaluate(
                "[...document.querySelectorAll('.hit .bar')].map((bar) => bar.hidden ? null : "
                "bar.firstElementChild.getBoundingClientRect().width / bar.getBoundingClientRect().width)"
            )
            assert bars == [share if share is None else pytest.approx(share, abs=0.005) for share in given]
        texts = page.locator(".hit .sure").all_text_contents()
        assert texts[1:6] == [
            "75 % match",
            "50 % match",
            "no match (25 %)",
            "no match (below 1 %)",
            "no match (below 1 %)",
        ]


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_a_word_says_where_nothing_matches(
    browser: Browser, address: str, viewport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(browser, address, viewport=viewport) as page:
        for nothing in (True, False):
            monkeypatch.setattr("scripts.app.server.nothing_matches", lambda hits, nothing=nothing: nothing)
            found(page, TEXT)
            expect(page.locator("#results-title")).to_have_text("Nothing matches" if nothing else "Best first")
            assert page.locator("#nothing-matches").is_visible() == nothing


def test_what_is_not_read_of_a_text_is_said(browser: Browser, address: str) -> None:
    with opened(browser, address, viewport=PHONE) as page:
        found(page, "red grey grows moves blue " * 1000)
        assert len(page.input_value("#paragraph").split()) == 5000  # the page itself cuts nothing
        notice = page.locator("#search-notice")
        expect(notice).to_contain_text("of these 5,000 words; the others have no effect.")
        assert notice.bounding_box()["y"] > top(page, "#paragraph")
        found(page, TEXT)
        expect(notice).to_be_hidden()
        page.fill("#paragraph", "a" * (TEXT_CHARACTERS + 1))
        page.press("#paragraph", "Enter")
        expect(page.locator("#search .status")).to_contain_text("has 40,001 characters; shorten it to 40,000")


def test_videos_that_failed_are_shown(browser: Browser, address: str) -> None:
    with opened(browser, address, viewport=PHONE) as page:
        expect(page.locator(".facts")).to_have_text("8 of 9 videos in index")
        page.click("text=1 video could not be read")
        expect(page.locator("#failed li")).to_contain_text(f"{FAILED}: ")


def test_pictures_of_merging_come_into_view(browser: Browser, address: str) -> None:
    """In the one page that scrolls: nothing within the stage scrolls up and down by itself."""
    for viewport in (DESK, PHONE):
        with opened(browser, address, viewport=viewport) as page:
            page.locator(".hit", has_text="3.mp4").click()
            page.wait_for_selector("#screen video")
            scrollers = (
                "[...document.querySelectorAll('.stage, .stage *')].filter((one) => "
                "['auto', 'scroll'].includes(getComputedStyle(one).overflowY) && "
                "one.scrollHeight > one.clientHeight + 1)"
                ".map((one) => one.id || one.className)"
            )
            page.click("#aggregation button")
            expect(page.locator("#drawings img")).to_have_count(3)
            expect(page.locator("#aggregation .status")).to_have_text("3 pictures are below.")
            page.wait_for_function("[...document.querySelectorAll('#drawings img')].every((one) => one.naturalWidth)")
            page.wait_for_timeout(700)  # the page scrolls smoothly
            assert page.evaluate(scrollers) == []
            assert 0 <= top(page, "#drawings img") < viewport["height"] - 150
            assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
            if viewport is PHONE:  # at their own size, where their labels are as large as they were drawn
                assert (
                    page.evaluate(
                        "document.querySelector('#drawings img').width / "
                        "document.querySelector('#drawings img').naturalWidth"
                    )
                    == 1
                )
                assert page.locator("#drawings figcaption").first.bounding_box()["width"] <= 390


def test_a_telephone_shows_the_list_the_player_and_then_the_upload(browser: Browser, address: str) -> None:
    with opened(browser, address, viewport=PHONE) as page:
        found(page, TEXT)
        order = [
            top(page, selector) for selector in ("#search", "#hits", "#screen", "#moments", "#aggregation", "#upload")
        ]
        assert order == sorted(order)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        small = page.evaluate(
            "[...document.querySelectorAll('body *')].filter((one) => one.checkVisibility() && one.clientWidth > 1 && "
            "[...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) && "
            f"parseFloat(getComputedStyle(one).fontSize) < {READABLE}).map((one) => one.textContent)"
        )
        assert small == []


def test_a_long_name_does_not_stretch_the_cards(
    browser: Browser, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lengths(page: Page) -> list[float]:
        return page.evaluate("[...document.querySelectorAll('.hit')].map((one) => one.getBoundingClientRect().height)")

    with opened(browser, address, viewport=PHONE) as page:
        found(page, TEXT)
        before = max(lengths(page))
        renamed = (
            "(name) => { for (const one of document.querySelectorAll('.hit .name')) "
            f"if (one.textContent === {ODD_NAME!r}) one.textContent = name; }}"
        )
        page.evaluate(renamed, LONG_NAME)
        assert page.locator(".hit .name", has_text=LONG_NAME).count() == 1
        line = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.hit .name')).lineHeight)")
        assert max(lengths(page)) <= before + line + 1
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_list_is_one_step_from_the_player(browser: Browser, address: str) -> None:
    with opened(browser, address, viewport=PHONE) as page:
        found(page, TEXT)
        page.click('.jumps a[href="#aggregation-part"]')
        expect(page.locator("#aggregation")).to_be_in_viewport()
        page.click("#to-list")
        expect(page.locator('.hit[aria-current="true"]')).to_be_focused()
        expect(page.locator('.hit[aria-current="true"]')).to_be_in_viewport()
