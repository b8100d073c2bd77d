"""Trace how a checkpoint aggregates the tokens of a video, and draw the trace."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from datasets.encode import write_video
from inference.api import TrainedModel
from inference.pictures.figures import (
    draw_blocks,
    draw_end,
    draw_grounding,
    draw_similarities,
    film,
    write_figure,
)
from inference.pictures.trace import Trace, grounded, trace_video
from models.parts.aggregation import AggregationStep

FRAMES_A_SECOND = 4


class _BlocksBegun(list):
    """The list of each block's steps, with a progress bar over blocks, because encoding is slow on a CPU."""

    def __init__(self, progress: tqdm) -> None:
        super().__init__()
        self.progress = progress

    def append(self, steps: list[AggregationStep]) -> None:
        super().append(steps)
        self.progress.update()


def trace_of(model: TrainedModel, video: str, start: float | None, end: float | None) -> Trace:
    """Read a video as the checkpoint samples it, and trace its encoding."""
    frames = model.read_video(video, start, end).to(model.device)
    with model.computing(), tqdm(total=model.model.num_blocks, desc="encoding", unit="block") as progress:
        return trace_video(model.model, frames, _BlocksBegun(progress))


def similarity_of(model: TrainedModel, trace: Trace, text: str) -> NDArray[np.float64]:
    """The cosine (T, L) of a phrase with each cell's token."""
    embedding = model.encode_text(text)
    with model.computing():
        return grounded(model.model, trace, embedding)


def write_pictures(
    trace: Trace, out: Path, name: str, text: str | None, similarity: NDArray[np.float64] | None
) -> None:
    """Draw all pictures and the video of a trace into a folder; `similarity` (T, L) belongs to `text`."""
    left = len(np.unique(trace.origins[trace.origins >= 0]))
    title = f"{name}: {trace.origins.size} patches of {len(trace.frames)} frames become {left} tokens"
    pictures: dict[str, Callable[[], Figure]] = {
        "regions": lambda: draw_end(trace, title),
        "blocks": lambda: draw_blocks(trace, title),
        "similarity": lambda: draw_similarities(trace, f"{name}: similarity of tokens"),
    }
    if similarity is not None:
        pictures["grounding"] = lambda: draw_grounding(trace, similarity, f"{name}: “{text}”")

    out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(pictures) + 1, desc="pictures", unit="file") as progress:
        for stem, draw in pictures.items():
            write_figure(draw(), out / f"{stem}.png")
            progress.update()

        write_video(out / "regions.mp4", film(trace, similarity), FRAMES_A_SECOND)
        progress.update()
