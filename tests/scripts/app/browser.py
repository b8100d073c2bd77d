"""The page as it is served, and a real browser in front of it."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from scripts.app.__main__ import parse_arguments, prepare
from scripts.app.safety import address_of

FLAGS = ["--no-sandbox", "--mute-audio"]  # in a container without user namespaces there is no sandbox
WAIT_MS = 60_000
"""Much longer than anything takes: machines that are busy are slow."""


def chromium() -> str:
    """The browser's program; the test is skipped where there is none, but for CI, where it fails."""
    program = shutil.which("chromium")
    if program is None:
        reason = "chromium is not on PATH; install it (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


@contextmanager
def started() -> Iterator[Browser]:
    """The browser, without a window."""
    program = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def served(*words: object) -> Iterator[str]:
    """The address at which `python -m scripts.app WORDS` serves, in a thread of this process."""
    server, bound = prepare(parse_arguments(["--port", "0", *map(str, words)]))
    thread = Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield address_of("127.0.0.1", bound)
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def opened(browser: Browser, address: str, **settings: Any) -> Iterator[Page]:
    """The page, under playwright's `settings` of a context; whatever goes wrong in its scripts fails."""
    with browser.new_context(**settings) as context:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        page.goto(address)
        page.wait_for_selector(".hit")
        yield page
    # Of an answer that is an error the browser tells by itself; the page shows what it says.
    assert [text for text in wrong if not text.startswith("Failed to load resource")] == []


def until(page: Page, expression: str) -> None:
    """Wait until a JavaScript expression is true, as wait_for_function does where a page's policy lets it evaluate."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"not within {WAIT_MS / 1000:g} s: {expression}"
        page.wait_for_timeout(20)


def found(page: Page, text: str) -> list[str]:
    """The names of the videos that the page finds for a text, the best first."""
    page.fill("#paragraph", text)
    with page.expect_response("**/search") as answered:
        page.press("#paragraph", "Enter")
    assert answered.value.ok, answered.value.text()
    until(page, "document.querySelector('#search .status').textContent === ''")
    return page.locator(".hit .name").all_text_contents()


def played(page: Page) -> float:
    """Seconds at which the player is, once it has gone on from where it is now, or come to its end."""
    first = page.evaluate("document.querySelector('#screen video').currentTime")
    player = "document.querySelector('#screen video')"
    until(page, f"{player}.currentTime > {first} || {player}.ended")
    return page.evaluate(f"{player}.currentTime")
