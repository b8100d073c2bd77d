"""The first examples of a part on one sheet: the frames a run would take, and the text that belongs to them."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scripts.check_dataset.look import SHOWN, THUMBNAIL, Seen
from scripts.parts.worker_pool import Failure

MARGIN, LINE, FONT = 8, 17, 13
CHARACTERS, LINES = 125, 6
WIDTH = 2 * MARGIN + SHOWN * THUMBNAIL


@dataclass(frozen=True)
class Example:
    """A video, what was read of it, and its first text, cleaned."""

    path: str
    text: str
    seen: Seen | Failure


def draw_sheet(title: str, examples: Sequence[Example], path: Path) -> None:
    """Write a PNG with one row an example."""
    rows = [(example, _lines(example)) for example in examples]
    heights = [(len(lines) + 1) * LINE + THUMBNAIL + 2 * MARGIN for _, lines in rows]
    sheet = Image.new("RGB", (WIDTH, LINE + 2 * MARGIN + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT)
    draw.text((MARGIN, MARGIN), title, fill="black", font=font)
    top = LINE + 2 * MARGIN
    for (example, lines), height in zip(rows, heights, strict=True):
        draw.text((MARGIN, top), _heading(example), fill="grey", font=font)
        top_of_frames = top + LINE
        if isinstance(example.seen, Failure):
            reason = textwrap.fill(f"cannot be read: {example.seen.reason}", CHARACTERS)
            draw.text((MARGIN, top_of_frames), reason, fill="red", font=font)
        elif example.seen.thumbnails is not None:
            for place, frame in enumerate(example.seen.thumbnails):
                sheet.paste(Image.fromarray(frame), (MARGIN + place * THUMBNAIL, top_of_frames))

        for number, line in enumerate(lines):
            place = top_of_frames + THUMBNAIL + number * LINE
            draw.text((MARGIN, place), line, fill="black", font=font)

        top += height

    sheet.save(path)


def _heading(example: Example) -> str:
    if isinstance(example.seen, Failure):
        return Path(example.path).name
    seconds = "" if example.seen.seconds is None else f", {example.seen.seconds:.1f} s"
    return f"{Path(example.path).name}: {example.seen.frames} frames{seconds}"


def _lines(example: Example) -> list[str]:
    return textwrap.wrap(example.text, CHARACTERS, max_lines=LINES, placeholder=" ...") or [""]
