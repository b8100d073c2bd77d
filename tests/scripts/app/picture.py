"""Take the picture of the page that the documentation shows.

    python -m tests.scripts.app.picture OUT.png --text "a paragraph" --question "a question" -- --index DIR --answer C

What follows -- is what `python -m scripts.app` is given.
"""

import argparse
import io
from pathlib import Path

from PIL import Image

from tests.scripts.app.browser import found, opened, played, served, started

WIDTH, HEIGHT = 1280, 1240
SHADES = 37


def main() -> None:
    """Search, play the best video for a moment, ask, and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--text", required=True)
    parser.add_argument("--question", required=True)
    parser.add_argument("--colours", choices=("light", "dark"), default="light")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("words", nargs="+", metavar="OPTION")
    options = parser.parse_args()
    size = {"width": options.width, "height": HEIGHT}
    with (
        started() as browser,
        served(*options.words) as address,
        opened(browser, address, viewport=size, color_scheme=options.colours) as page,
    ):
        found(page, options.text)
        page.locator(".hit").first.click()
        page.wait_for_selector("#screen video")
        played(page)
        page.evaluate("document.querySelector('#screen video').pause()")
        page.fill("#question", options.question)
        page.press("#question", "Enter")
        page.wait_for_selector("#answers dd")
        page.evaluate("document.activeElement.blur()")
        page.mouse.move(0, 0)
        page.wait_for_timeout(4000)  # until the player hides its controls
        taken = page.screenshot()
    # Fewer shades, which nobody sees, take half of the bytes that the noise of story videos costs.
    shades = [round(round(value / 255 * SHADES) * 255 / SHADES) for value in range(256)]
    Image.open(io.BytesIO(taken)).convert("RGB").point(shades * 3).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
