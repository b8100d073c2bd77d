"""UMT's video encoder for inference: ours, the released code's way, transformers' VideoMAE, and the machine's limit.

ViT-B/16 at 12 and 48 frames of 224 pixels, without a reducer and with vid-TLDR's list for MSR-VTT, which at 48 frames
is that of 12 times four. One video at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.limit import MachineLimit, record
from benchmarks.measure import Case, Row, Variant
from benchmarks.settings import Settings
from benchmarks.umt.naive_encoder import NaiveJointEncoder
from configs.models.umt import UMTConfig
from configs.schema import AggregationConfig, VideoConfig
from engine.host_memory import keep_freed_memory
from models.umt.cost import count
from models.umt.video_encoder import VideoEncoder

MODULE = "benchmarks.umt.encoder"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FRAMES = (12, 48)
LIST, LIST_FRAMES = (600, 200, 100), 12


@dataclass(frozen=True)
class Work:
    """One encoder and its input; JSON-able."""

    frames: int
    dtype: str
    reduces: bool
    depth: int = 12
    width: int = 768
    heads: int = 12
    patch_size: int = 16
    image_size: int = 224

    @property
    def name(self) -> str:
        """What the table calls it."""
        reducer = f"saliency {list(self.amounts)}" if self.reduces else "no reducer"
        return f"encoder {self.dtype}, {self.frames} frames, {reducer}"

    @property
    def amounts(self) -> tuple[int, ...]:
        """The list, in proportion to the tokens."""
        published = LIST_FRAMES * (224 // 16) ** 2
        tokens = self.frames * (self.image_size // self.patch_size) ** 2
        return tuple(amount * tokens // published for amount in LIST)

    def sections(self) -> tuple[UMTConfig, VideoConfig, AggregationConfig]:
        """The configuration."""
        reducer = AggregationConfig(reducer="saliency", tokens_per_block=self.amounts)
        model = UMTConfig(
            depth=self.depth, width=self.width, heads=self.heads, patch_size=self.patch_size, pooling="all"
        )
        video = VideoConfig(num_frames=self.frames, image_size=self.image_size)
        return model, video, reducer if self.reduces else AggregationConfig()


def works() -> list[Work]:
    """What is measured."""
    return [Work(frames, dtype, reduces) for frames in FRAMES for dtype in DTYPES for reduces in (False, True)]


def cases(settings: Settings) -> list[Case]:
    """Every work against its limit, the released code's way and, without a reducer, transformers."""
    if settings.config is not None or settings.overrides:
        raise ValueError("--system umt: the encoder is measured at fixed sizes; leave out --config and settings")
    return [case_of(work) for work in works()]


def case_of(work: Work) -> Case:
    """The ways to do one work."""
    ours, naive, limit, peer = (
        Variant(f"{MODULE}:{name}", {"work": work.__dict__}) for name in ("ours", "naive", "limit", "peer")
    )
    return Case(work.name, ours, naive, None if work.reduces else peer, limit)


def ours(settings: Settings, work: dict[str, Any]) -> Callable[[], None]:
    """Our encoder, prepared for inference."""
    encoder = _encoder(settings, Work(**work)).fold_for_inference()
    keep_freed_memory()  # not before: what building has freed would hide part of the peak
    return _forward(encoder, _pixels(settings, Work(**work)))


def naive(settings: Settings, work: dict[str, Any]) -> Callable[[], None]:
    """The released code's way, with our weights."""
    return _forward(NaiveJointEncoder(_encoder(settings, Work(**work))), _pixels(settings, Work(**work)))


def peer(settings: Settings, work: dict[str, Any]) -> Callable[[], None]:
    """transformers' VideoMAE of the same sizes; it has no reducer."""
    from transformers import VideoMAEConfig, VideoMAEModel

    sizes = Work(**work)
    assert not sizes.reduces
    config = VideoMAEConfig(
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        num_frames=sizes.frames,
        tubelet_size=1,
        hidden_size=sizes.width,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        intermediate_size=4 * sizes.width,
    )
    torch.manual_seed(0)
    encoder = VideoMAEModel(config).eval().to(settings.device, DTYPES[sizes.dtype])
    return _forward(encoder, _pixels(settings, sizes))


def limit(settings: Settings, work: dict[str, Any]) -> MachineLimit:
    """What the machine could do of the products that we execute."""
    keep_freed_memory()
    sizes = Work(**work)
    with torch.device("meta"):
        encoder = VideoEncoder(*sizes.sections()).eval().fold_for_inference()
        pixels = torch.empty(1, sizes.frames, 3, sizes.image_size, sizes.image_size)
    return MachineLimit(record(encoder, pixels), torch.device(settings.device), DTYPES[sizes.dtype])


def notes(settings: Settings, rows: Sequence[Row]) -> list[str]:
    """For every pair of rows without and with the reducer: how much of what it saves is realised."""
    del settings
    seconds = {row.name.removeprefix("umt "): row.ours_s for row in rows}
    lines = []
    for without in works():
        reducing = Work(without.frames, without.dtype, reduces=True)
        if without.reduces or not {without.name, reducing.name} <= seconds.keys():
            continue
        faster = seconds[without.name] / seconds[reducing.name]
        fewer = count(*without.sections()).gmacs / count(*reducing.sections()).gmacs
        lines.append(
            f"{reducing.name}: {faster:.3f} times faster than without; GMACs fall {fewer:.3f} times: "
            f"realised {faster / fewer:.3f} of it"
        )
    return lines


def _encoder(settings: Settings, work: Work) -> VideoEncoder:
    torch.manual_seed(0)
    return VideoEncoder(*work.sections()).eval().to(settings.device, DTYPES[work.dtype])


def _pixels(settings: Settings, work: Work) -> Tensor:
    shape = (1, work.frames, 3, work.image_size, work.image_size)
    pixels = torch.empty(shape, device=settings.device, dtype=DTYPES[work.dtype])
    return pixels.normal_(generator=torch.Generator(settings.device).manual_seed(0))


def _forward(encoder: torch.nn.Module, pixels: Tensor) -> Callable[[], None]:
    def forward() -> None:
        with torch.no_grad():
            encoder(pixels)

    return forward
