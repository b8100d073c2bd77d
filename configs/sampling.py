"""The names of the rules by which frames are chosen, and of the ways in which they are resized."""

from typing import Literal

EvalSampling = Literal["uniform", "uniform_floor", "interval_middle", "interval_middle_padded", "ends", "per_second"]
Sampling = Literal[
    EvalSampling,
    "headtail",
    "random",
    "interval_random",
    "interval_random_padded",
    "interval_random_reference",
    "interval_random_part",
]
Interpolation = Literal["ffmpeg", "nearest", "bilinear", "bicubic", "bicubic_aliased"]
