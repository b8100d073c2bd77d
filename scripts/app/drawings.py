"""Pictures of aggregation and of boxes, kept for a while after they were drawn."""

import secrets
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.api import TrainedModel
from inference.pictures.aggregation import similarity_of, trace_of, write_pictures
from scripts.app.boxes import PageBoxes
from scripts.app.library import PageVideo

KEPT = 8
"""The oldest leave."""
NAME_CHARACTERS = 40
"""Of a video, as many as its pictures have room for."""
MEANINGS = {
    "regions.png": "Every frame, and what is left of it: merged patches in one colour, merged frames in one border",
    "grounding.png": "The similarity of the phrase with every region of every frame, as heat",
    "blocks.png": "The same frames block by block, from the input to the end of the encoder",
    "similarity.png": "For each block, how similar those are that merge, beside all others",
    "boxes.png": "The boxes of objects on the frames that they belong to, and how the middle of each object moves",
}
"""The files that are shown, in this order, and what can be seen in each: those of `write_pictures`, and of boxes."""


class Drawings:
    """What was drawn last, each set under a random name.

    Args:
        folder: where the pictures lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drawn: OrderedDict[str, Path] = OrderedDict()

    def draw(
        self, model: TrainedModel, video: str, name: str, text: str | None, start: float | None, end: float | None
    ) -> list[dict[str, Any]]:
        """Draw what merges in a video; the address of each picture and what it means.

        ValueError if the video cannot be read, nothing merges in it, or the model has no embedding of a phrase.
        """
        trace = trace_of(model, video, start, end)
        similarity = None if text is None else similarity_of(model, trace, text)
        title = name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"
        return self._keep(lambda out: write_pictures(trace, out, title, text, similarity))

    def draw_boxes(self, boxes: PageBoxes, video: PageVideo) -> list[dict[str, Any]]:
        """Draw the boxes of a video; its address and what it means. ValueError if there are none."""
        picture = boxes.draw(video)

        def write(out: Path) -> None:
            out.mkdir()
            (out / "boxes.png").write_bytes(picture)

        return self._keep(write)

    def _keep(self, write: Callable[[Path], None]) -> list[dict[str, Any]]:
        """Have pictures written into a new folder, and forget the oldest."""
        key = secrets.token_hex(16)
        out = self._folder / f"drawing-{key}"
        write(out)
        self._drawn[key] = out
        while len(self._drawn) > KEPT:
            shutil.rmtree(self._drawn.popitem(last=False)[1])
        return [
            {"address": f"/drawings/{key}/{file}", "meaning": meaning}
            for file, meaning in MEANINGS.items()
            if (out / file).is_file()
        ]

    def find(self, key: str, name: str) -> Path:
        """A file that was drawn; KeyError if there is none."""
        if name not in MEANINGS or not (self._drawn[key] / name).is_file():
            raise KeyError(name)
        return self._drawn[key] / name
