"""The boxes of a file on the frames of the page's videos."""

import io
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets import decode, sampling
from datasets.framing import Framing
from datasets.objects.store import ObjectSettings, ObjectStore
from inference.api import TrainedModel
from scripts.app.library import PageVideo
from scripts.parts.box_pictures import draw_clip

SHOWN_PIXELS = 224
"""Frames are enlarged to at least so many pixels a side, or labels could not be read."""


class PageBoxes:
    """A file of boxes that `scripts.prepare_objects` has made; ValueError if there is no such file."""

    def __init__(self, path: Path) -> None:
        self._store = ObjectStore(path)

    @classmethod
    def of(cls, path: Path | None, models: list[TrainedModel]) -> "PageBoxes | None":
        """The boxes of the file at `path`, or else of the first `data.objects` of the models that is still there."""
        if path is not None:
            return cls(path)
        named = [
            Path(model.config.data.root) / model.config.data.objects
            for model in models
            if model.config.data.objects is not None
        ]
        return next((cls(path) for path in named if path.is_file()), None)

    def draw(self, video: PageVideo) -> bytes:
        """A PNG of a video's boxes and trajectories, on the frames that the boxes are of.

        ValueError if the file has no boxes of the video, or the video cannot be read.
        """
        store = self._store
        row = None if video.is_upload else store.find([video.name, str(video.path)])
        if row is None or store.has_failed(row):
            raise ValueError(f"{video.path}: {store.path.name} has no boxes of it; make them with prepare_objects")
        try:
            frames = read_frames(str(video.path), store.settings)
        except decode.DecodeError as error:
            raise ValueError(f"{video.path}: cannot be read ({error.reason})") from None

        written = io.BytesIO()
        draw_clip(frames, store.at(row), store.settings.classes, SHOWN_PIXELS).save(written, "PNG")
        return written.getvalue()


def read_frames(file: str, settings: ObjectSettings) -> NDArray[np.uint8]:
    """The frames that boxes are of, (T, size, size, 3); DecodeError if the file cannot be read."""
    size, no_rng = settings.image_size, partial(np.random.default_rng, 0)
    framing = Framing(size, settings.fit, "bicubic", resize=size)
    square = partial(framing.square, rng=no_rng())
    if decode.is_still(file):
        clip = square(decode.read_image(file)).expand(settings.num_frames, -1, -1, -1)
    else:
        choose = sampling.chooser(settings.sampling, settings.num_frames, no_rng)
        clip = decode.read_video(file, size, choose, square=square)
    return np.ascontiguousarray(clip.permute(0, 2, 3, 1).numpy())
