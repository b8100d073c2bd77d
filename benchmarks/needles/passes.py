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

FRAMES_AT_ONCE = 512
"""Short passes are encoded together, up to so many frames."""


@dataclass(frozen=True)
class Pass:
    """How hours are encoded: so many seconds in one pass, `stride` seconds apart, with this `video.time_table`."""

    seconds: int
    stride: int
    time_table: TimeTable = "nearest"

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


def encode_hours(hours: list[Path], checkpoint: Path, one_pass: Pass, window: Pass, folder: Path) -> tuple[Rows, Rows]:
    """Encode what `folder` does not hold yet; rows of whole passes, and of the windows in their tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    model: TrainedModel | None = None
    passes: tuple[list[Clip], list[NDArray]] = ([], [])
    windows: tuple[list[Clip], list[NDArray]] = ([], [])

    for hour in progress_bar(hours, one_pass.name):
        path = folder / f"{hour.stem}.npz"
        if not path.exists():
            model = model or load_model(checkpoint, *one_pass.overrides)
            _save(_encode_hour(model, hour, one_pass, window), path)
        with np.load(path) as file:
            encoded = Encoded(file["passes"], file["windows"])

        for number in range(len(encoded.passes)):
            first = number * one_pass.stride
            passes[0].append(_part(hour, first, one_pass.seconds))
            starts = [first + window.stride * index for index in range(encoded.windows.shape[1])]
            windows[0].extend(_part(hour, start, window.seconds) for start in starts)
        passes[1].append(encoded.passes)
        windows[1].append(encoded.windows.reshape(-1, encoded.windows.shape[-1]))

    return Rows(passes[0], np.concatenate(passes[1])), Rows(windows[0], np.concatenate(windows[1]))


def _encode_hour(model: TrainedModel, hour: Path, one_pass: Pass, window: Pass) -> Encoded:
    """Read the file once, and encode all passes that it holds."""
    frames_TCHW = read_video(str(hour), model.config.video.image_size, np.arange)
    clips_BTCHW = frames_TCHW.unfold(0, one_pass.seconds, one_pass.stride).permute(0, 4, 1, 2, 3)
    passes, windows = [], []
    for some in clips_BTCHW.split(max(1, FRAMES_AT_ONCE // one_pass.seconds)):
        features = model.encode_clips(Pixels.of_pixels(some.contiguous()))
        assert features.embedding is not None
        passes.append(features.embedding)
        windows.append(_windows(model, features.tokens, one_pass.seconds, window))
    return Encoded(torch.cat(passes).cpu().numpy(), torch.cat(windows).cpu().numpy())


def _windows(model: TrainedModel, tokens_BND: Tensor, num_frames: int, window: Pass) -> Tensor:
    """Embeddings (B, W, E) of windows, each from the mean of its frames' tokens; the class token is in none."""
    frames_BTD = tokens_BND[:, 1:].unflatten(1, (num_frames, -1)).mean(dim=2)
    windows_BWD = frames_BTD.unfold(1, window.seconds, window.stride).mean(dim=-1)
    with model.computing():
        return model.model.project_tokens(windows_BWD)


def _part(hour: Path, start: int, seconds: int) -> Clip:
    return Clip(str(hour), float(start), float(start + seconds), None, None)


def _save(encoded: Encoded, path: Path) -> None:
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, passes=encoded.passes, windows=encoded.windows)
