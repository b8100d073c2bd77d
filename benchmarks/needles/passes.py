"""Hours in long passes: one embedding of each pass, and windows of the tokens that a single pass gives.

A pass of as many frames as the model learned from is a window like any other. A longer one needs other time positions,
which `video.time_table` chooses. Shapes: T frames, L patches a frame, W windows, D width, E width of the shared space.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.model import TimeTable
from datasets.decode import read_video
from datasets.samples import Clip as Pixels
from engine.checkpoint_folder import replacing_file
from inference.api import TrainedModel, load_model
from inference.features.sources import Clip
from tasks.base import progress_bar


@dataclass(frozen=True)
class LongPass:
    """How hours are encoded: so many seconds in one pass, with time positions stretched in one way."""

    seconds: int
    time_table: TimeTable

    @property
    def name(self) -> str:
        """As results and folders name it."""
        return f"{self.seconds}_{self.time_table}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """The settings of the model."""
        return f"video.num_frames={self.seconds}", f"video.time_table={self.time_table}"


class Rows(NamedTuple):
    """Parts of hours, and an embedding (R, E) for each."""

    clips: list[Clip]
    embeddings: NDArray


class Encoded(NamedTuple):
    """An hour: the embeddings of its passes (passes, E), and those of windows in them (passes, W, E)."""

    passes: NDArray
    windows: NDArray


def encode_hours(
    hours: list[Path], checkpoint: Path, long_pass: LongPass, window: int, stride: int, folder: Path
) -> tuple[Rows, Rows]:
    """Encode what `folder` does not hold yet; rows of whole passes, and of the windows in them."""
    folder.mkdir(parents=True, exist_ok=True)
    model: TrainedModel | None = None
    passes: tuple[list[Clip], list[NDArray]] = ([], [])
    windows: tuple[list[Clip], list[NDArray]] = ([], [])

    for hour in progress_bar(hours, long_pass.name):
        path = folder / f"{hour.stem}.npz"
        if not path.exists():
            model = model or load_model(checkpoint, *long_pass.overrides)
            _save(_encode_hour(model, hour, long_pass.seconds, window, stride), path)
        with np.load(path) as file:
            encoded = Encoded(file["passes"], file["windows"])

        for number in range(len(encoded.passes)):
            first = float(number * long_pass.seconds)
            passes[0].append(Clip(str(hour), first, first + long_pass.seconds, None, None))
            starts = [first + stride * index for index in range(encoded.windows.shape[1])]
            windows[0].extend(Clip(str(hour), start, start + window, None, None) for start in starts)
        passes[1].append(encoded.passes)
        windows[1].append(encoded.windows.reshape(-1, encoded.windows.shape[-1]))

    return Rows(passes[0], np.concatenate(passes[1])), Rows(windows[0], np.concatenate(windows[1]))


def _encode_hour(model: TrainedModel, hour: Path, seconds: int, window: int, stride: int) -> Encoded:
    frames_TCHW = read_video(str(hour), model.config.video.image_size, np.arange)
    passes, windows = [], []
    for pixels_TCHW in frames_TCHW.split(seconds):
        features = model.encode_clips(Pixels.of_pixels(pixels_TCHW[None].contiguous()))
        assert features.embedding is not None and len(pixels_TCHW) == seconds, "passes divide an hour"
        passes.append(features.embedding[0])
        windows.append(_windows(model, features.tokens[0], seconds, window, stride))
    return Encoded(torch.stack(passes).cpu().numpy(), torch.stack(windows).cpu().numpy())


def _windows(model: TrainedModel, tokens: Tensor, num_frames: int, window: int, stride: int) -> Tensor:
    """The embeddings (W, E) of windows, each from the mean of its frames' tokens; the class token is in none."""
    frames_TD = tokens[1:].unflatten(0, (num_frames, -1)).mean(dim=1)
    windows_WD = frames_TD.unfold(0, window, stride).mean(dim=-1)
    with model.computing():
        return model.model.project_tokens(windows_WD)


def _save(encoded: Encoded, path: Path) -> None:
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, passes=encoded.passes, windows=encoded.windows)
