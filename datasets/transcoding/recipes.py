"""How the videos of each dataset are made smaller before training."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a video becomes: H.264 in mp4 without sound, upright, with square pixels and even sides.

    Attributes:
        fps: constant frame rate, frames dropped or repeated by their time stamps; None keeps every frame and its time.
        short_side: pixels of the shorter side, the aspect kept; None keeps the size.
        seconds: only so much from the beginning; None keeps the whole video.
        upscale: enlarge videos that are smaller than `short_side`, which otherwise keep their size.
    """

    fps: float | None = None
    short_side: int | None = None
    seconds: float | None = None
    upscale: bool = False

    def __post_init__(self) -> None:
        for name in ("fps", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"--{name} {value:g}: must be more than 0")
        if self.short_side is not None and (self.short_side < 16 or self.short_side % 2):
            raise ValueError(f"--short-side {self.short_side}: must be even and at least 16")
        if self.upscale and self.short_side is None:
            raise ValueError("--upscale: has no effect without --short-side")

    def size(self, width: float, height: float) -> tuple[int, int]:
        """Width and height of the output for a picture of `width` to `height` as it is shown."""
        scale = 1.0 if self.short_side is None else self.short_side / min(width, height)
        if not self.upscale:
            scale = min(scale, 1.0)
        return _even(width * scale), _even(height * scale)


PRESETS: dict[str, Recipe] = {
    # Those of the TESTA release, which says so in its documentation.
    "didemo": Recipe(fps=30, short_side=224, seconds=30),
    "activitynet": Recipe(fps=6, short_side=224),
    # Ours: the release reads these as they are downloaded, or does not say. Six frames a second are more than 96
    # frames a video ever need, and 256 pixels leave room for the random crop of pre-training.
    "queryd": Recipe(fps=6, short_side=224),
    "condensed_movies": Recipe(fps=6, short_side=224),
    "msrvtt": Recipe(fps=6, short_side=224),
    "webvid": Recipe(fps=6, short_side=256),
}
"""Recipes by the name of the dataset."""


def _even(pixels: float) -> int:
    return max(2 * round(pixels / 2), 2)
