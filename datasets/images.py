"""Still images through Pillow: turned upright, as 8-bit RGB."""

import struct

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from datasets.records import ShardMember, is_image
from datasets.remote.addresses import path_of, shown
from datasets.remote.fetch import CachedFile
from datasets.video.files import DecodeError, LocalFile, at_hand, one_line, opened_by_pillow

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


def is_still(file: LocalFile) -> bool:
    """Whether a file is taken as a still clip: an image by its suffix, unless it is an animated WebP."""
    return is_image(str(file)) and not is_animated_webp(file)


def is_animated_webp(file: LocalFile) -> bool:
    """Whether the file is a WebP of several frames; False if it cannot be opened."""
    if not path_of(str(file)).lower().endswith(".webp"):
        return False
    try:
        with at_hand(file) as local:
            path, offset = _place_of(local)
            with open(path, "rb") as opened:
                opened.seek(offset)
                head = opened.read(21)
    except (OSError, DecodeError):
        return False
    # The extended format says in its flags whether frames follow.
    return len(head) == 21 and head[8:16] == b"WEBPVP8X" and bool(head[20] & WEBP_ANIMATED)


def _place_of(file: LocalFile) -> tuple[str, int]:
    """The file to open, and the byte at which the picture begins."""
    if isinstance(file, ShardMember):
        return file.shard, file.offset
    return (file.path if isinstance(file, CachedFile) else file), 0


def read_image(file: LocalFile) -> Tensor:
    """Read an image, turned upright: uint8 (3, H, W), a view of (H, W, 3). DecodeError if it cannot be read.

    16-bit grey is scaled to 8 bits. So are floats, whose white is 1, 255 or 65535, the first that none exceeds, and
    else their highest; numbers below 0 are black.
    """
    try:
        with at_hand(file) as local, Image.open(opened_by_pillow(local)) as image:
            image.load()
            # Not by ImageOps: that writes all tags anew, and fails where one of them is odd. Turned and converted only
            # if need be, as each copies the picture even where it changes nothing.
            turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            turned = image if turn is None else image.transpose(turn)
            pixels = np.array(turned if turned.mode == "RGB" else to_rgb(turned))
    except PILLOW_ERRORS as error:
        raise DecodeError(shown(str(file)), f"Pillow: {one_line(error)}") from None
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
