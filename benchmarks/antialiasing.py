"""What resizing without antialiasing changes: UMT's published numbers were made so, and newer tools antialias.

    python -m benchmarks.antialiasing VIDEOS
    python -m benchmarks.antialiasing VIDEOS --checkpoint CHECKPOINT

Squashes the same frames of each video with `video.interpolation` bicubic_aliased and bicubic, and prints by how much
their pixels differ, for each size of frame. With a checkpoint it also prints how alike the two embeddings of a video
are, and beside it how alike those of different videos are.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.annotations.layout import VIDEO_SUFFIXES
from datasets.decode import DecodeError, read_video
from datasets.framing import Framing
from datasets.sampling import SAMPLERS, generator
from inference.api import load_model
from scripts.parts.arguments import at_least

RULES = ("bicubic_aliased", "bicubic")
SAMPLING = "interval_middle_padded"
FAR = 16
"""A difference of so many of 255 levels can be seen."""


@dataclass(frozen=True)
class Difference:
    """How much two ways to resize differ, in levels of 255: mean, root of the mean square, and the share above FAR."""

    mean: float
    root_mean_square: float
    far: float

    @classmethod
    def of(cls, one: Tensor, other: Tensor) -> "Difference":
        """The difference of two uint8 pictures."""
        levels = (one.short() - other.short()).abs().float()
        return cls(levels.mean().item(), levels.square().mean().sqrt().item(), (levels >= FAR).float().mean().item())


def videos_below(folder: Path) -> list[Path]:
    """The videos of a folder and the folders below it; ValueError if there is none."""
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise ValueError(f"{folder}: holds no video; name a folder of videos")
    return videos


def resized(video: Path, interpolation: str, size: int, num_frames: int) -> tuple[Tensor, tuple[int, int]]:
    """The clip (T, 3, size, size) of a video, and the height and width of its frames before."""
    framing, sides = Framing(size, "squash", interpolation), []

    def square(frame: Tensor, rng: np.random.Generator) -> Tensor:
        sides.append((frame.shape[-2], frame.shape[-1]))
        return framing.square(frame, rng)

    rng = generator("frames", 0, 0)
    choose = partial(_choose, num_frames=num_frames, rng=rng)
    clip = read_video(str(video), size, choose, square=partial(square, rng=rng))
    return clip, sides[0]


def _choose(length: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    return SAMPLERS[SAMPLING](num_frames, length, rng)


def measure(videos: list[Path], size: int, num_frames: int) -> Iterator[str]:
    """The lines of the table: a size of frames each, then all videos."""
    found: dict[str, list[Difference]] = defaultdict(list)
    for video in videos:
        try:
            (one, sides), (other, _) = (resized(video, rule, size, num_frames) for rule in RULES)
        except DecodeError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        found[f"{sides[1]} x {sides[0]}"].append(Difference.of(one, other))

    yield f"{'frames':<12}{'videos':>7}{'mean':>8}{'rms':>8}{f'{FAR} or more':>12}   levels of 255, at {size} x {size}"
    everything = [difference for differences in found.values() for difference in differences]
    for name, differences in [*sorted(found.items()), ("all", everything)]:
        means = np.mean([(item.mean, item.root_mean_square, item.far) for item in differences], axis=0)
        yield f"{name:<12}{len(differences):>7}{means[0]:8.2f}{means[1]:8.2f}{100 * means[2]:11.1f}%"


def compare_embeddings(videos: list[Path], checkpoint: str) -> Iterator[str]:
    """How alike a checkpoint's embeddings are that differ in resizing alone, and those of different videos."""
    one, other = (_embeddings(videos, checkpoint, rule) for rule in RULES)
    same = F.cosine_similarity(one, other)
    between = F.cosine_similarity(one[:, None], one[None], dim=-1)
    different = between[~torch.eye(len(videos), dtype=torch.bool)]
    yield f"cosine of a video's two embeddings: mean {same.mean():.4f}, least {same.min():.4f}"
    if len(different):
        yield f"cosine of different videos: mean {different.mean():.4f}, largest {different.max():.4f}"


def _embeddings(videos: list[Path], checkpoint: str, interpolation: str) -> Tensor:
    """Embeddings (V, E) of videos that are resized by one rule."""
    model = load_model(checkpoint, f"video.interpolation={interpolation}")
    return torch.stack([torch.as_tensor(model.encode_video(str(video))).flatten() for video in videos])


def main(words: list[str] | None = None) -> int:
    """Print what the command line asks for; the status to end with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="a folder of videos")
    parser.add_argument("--size", type=at_least(1), default=224, help="pixels a side (%(default)s)")
    parser.add_argument("--num-frames", type=at_least(1), default=12, help="of each video (%(default)s)")
    parser.add_argument("--checkpoint", help="also compare its embeddings; its own size and frames")
    options = parser.parse_args(words)

    try:
        videos = videos_below(options.videos)
        for line in measure(videos, options.size, options.num_frames):
            print(line)
        if options.checkpoint is not None:
            for line in compare_embeddings(videos, options.checkpoint):
                print(line)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
