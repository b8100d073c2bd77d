"""Still images through Pillow: turned upright, as 8-bit RGB."""

import struct

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from datasets.records import ShardMember, is_image
from datasets.video.files import DecodeError, one_line, opened_by_pillow

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the orientation in its EXIF tags."""
WEBP_ANIMATED = 0x02
PILLOW_ERRORS = (
    *(OSError, ValueError, Image.DecompressionBombError),
    *(SyntaxError, LookupError, TypeError, struct.error),  # a broken PNG, and broken tags
)


def is_still(file: str | ShardMember) -> bool:
    """Whether a file is taken as a still clip: an image by its suffix, unless it is an animated WebP."""
    return is_image(str(file)) and not is_animated_webp(file)


def is_animated_webp(file: str | ShardMember) -> bool:
    """Whether the file is a WebP of several frames; False if it cannot be opened."""
    if not str(file).lower().endswith(".webp"):
        return False
    path, offset = (file.shard, file.offset) if isinstance(file, ShardMember) else (file, 0)
    try:
        with open(path, "rb") as opened:
            opened.seek(offset)
            head = opened.read(21)
    except OSError:
        return False
    # The extended format says in its flags whether frames follow.
    return len(head) == 21 and head[8:16] == b"WEBPVP8X" and bool(head[20] & WEBP_ANIMATED)


def read_image(file: str | ShardMember) -> Tensor:
    """Read an image, turned upright: uint8 (3, H, W), a view of (H, W, 3). DecodeError if it cannot be read.

    16-bit grey is scaled to 8 bits. So are floats, whose white is 1, 255 or 65535, the first that none exceeds, and
    else their highest; numbers below 0 are black.
    """
    try:
        with Image.open(opened_by_pillow(file)) as image:
            image.load()
            # Not by ImageOps: that writes all tags anew, and fails where one of them is odd. Turned and converted only
            # if need be, as each copies the picture even where it changes nothing.
            turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            turned = image if turn is None else image.transpose(turn)
            pixels = np.array(turned if turned.mode == "RGB" else to_rgb(turned))
    except PILLOW_ERRORS as error:
        raise DecodeError(str(file), f"Pillow: {one_line(error)}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB. Pillow's own conversion clips numbers above 255 instead of scaling them."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image.convert("RGB")
    grey = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0, neginf=0).clip(min=0)
    highest = float(grey.max(initial=0))
    ranges = (1, 255, 65535) if image.mode == "F" else (65535,)
    white = next((end for end in ranges if highest <= end), highest)
    return Image.fromarray(np.round(grey * (255 / white)).astype(np.uint8)).convert("RGB")
