"""Show which frames of a video evaluation would be given: their numbers, their times, and how they were read.

    python -m scripts.show_frames VIDEO --frames 12 --start 3 --end 8 --png frames.png

The frames are spread evenly over the part (`uniform` sampling) and squashed to SIZE x SIZE pixels. No model is needed.

Exit status: 0, or 2 if the video cannot be read or the command itself is wrong.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from datasets import sampling
from datasets.decode import DecodeError, Reading, is_still, read, read_image
from datasets.transforms import resize_image
from scripts.parts.arguments import at_least, from_zero

COLUMNS = 4
LABEL_PIXELS = 14


def read_frames(path: str, num_frames: int, size: int, start: float | None = None, end: float | None = None) -> Reading:
    """The frames that evaluation with `uniform` sampling is given. DecodeError if the file cannot be read."""
    if is_still(path):
        if start is not None or end is not None:
            raise DecodeError(path, "it is an image, of which there are no parts; remove --start and --end")
        pixels = resize_image(read_image(path), size).permute(1, 2, 0).numpy()
        zeros = np.zeros(num_frames, np.int64)
        return Reading(np.stack([pixels] * num_frames), zeros, zeros.astype(float), "Pillow", "it is an image")
    rng = np.random.default_rng(0)
    return read(path, size, lambda length: sampling.uniform(num_frames, length, rng), start, end)


def contact_sheet(reading: Reading) -> Image.Image:
    """All frames on one picture, in rows, with number and time above each."""
    frames, size = reading.frames, reading.frames.shape[1]
    columns = min(COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    height = size + LABEL_PIXELS
    sheet = Image.new("RGB", (columns * size, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (pixels, index, time) in enumerate(zip(frames, reading.indices, reading.times, strict=True)):
        left, top = place % columns * size, place // columns * height
        draw.text((left + 2, top + 1), f"{index}  {time:.2f} s", fill="black")
        sheet.paste(Image.fromarray(pixels), (left, top + LABEL_PIXELS))
    return sheet


def summary(path: str, reading: Reading) -> dict[str, Any]:
    """What was read, as it is written to --json."""
    return {
        "video": path,
        "indices": reading.indices.tolist(),
        "times": [round(time, 6) for time in reading.times.tolist()],
        "reader": reading.reader,
        "reason": reading.reason,
    }


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", help="a video or an image")
    parser.add_argument("--frames", type=at_least(1), default=12, help="how many (%(default)s)")
    parser.add_argument("--start", type=from_zero, metavar="S", help="seconds from the first frame")
    parser.add_argument("--end", type=from_zero, metavar="S", help="seconds from the first frame")
    parser.add_argument("--size", type=at_least(1), default=224, help="pixels of a side (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write numbers, times, reader and reason")
    parser.add_argument("--npy", type=Path, metavar="FILE", help="write the frames, uint8 (T, H, W, 3)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write a picture of all frames")
    options = parser.parse_args(arguments)
    if options.end is not None and options.end <= (options.start or 0):
        parser.error(f"--end {options.end}: give a time after --start")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks; a file that cannot be read ends it with one line and status 2."""
    options = parse_arguments(arguments)
    try:
        reading = read_frames(options.file, options.frames, options.size, options.start, options.end)
        if options.json is not None:
            options.json.write_text(json.dumps(summary(options.file, reading), indent=2) + "\n", encoding="utf-8")
        if options.npy is not None:
            with options.npy.open("wb") as file:
                np.save(file, reading.frames)
        if options.png is not None:
            contact_sheet(reading).save(options.png, "PNG")
    except (DecodeError, OSError) as error:
        print(f"show_frames: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None

    print(f"{reading.reader}: {reading.reason}")
    for index, time in zip(reading.indices.tolist(), reading.times.tolist(), strict=True):
        print(f"frame {index} at {time:.3f} s")


if __name__ == "__main__":
    main()
