"""TVTSv2's video tower for inference: ours, the released code's way, transformers' CLIP, and the machine's limit.

B/16, one clip of 12 frames of 224 pixels: all tokens, or the embedding alone, as retrieval, recognition and features
need it. The embedding is held against the limit of the products left, and against that of the whole tower's, which the
other ways compute for it. transformers' CLIP sees the same frames as images, without attention over time: it does less.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.limit import MachineLimit, Products, record
from benchmarks.measure import Case, Variant
from benchmarks.settings import Settings
from benchmarks.tvts.naive_encoder import NaiveTower
from engine.host_memory import keep_freed_memory
from models.parts.clip.sizes import ImageTowerSizes
from models.tvts.video_tower import VideoTower

MODULE = "benchmarks.tvts.encoder"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WHOLE = " (limit of the whole tower's products)"


@dataclass(frozen=True)
class Work:
    """One tower and its input; JSON-able."""

    dtype: str
    embedding_only: bool = False
    frames: int = 12
    width: int = 768
    depth: int = 12
    heads: int = 12
    patch_size: int = 16
    image_size: int = 224
    embed_dim: int = 512

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{'embedding alone' if self.embedding_only else 'encoder'} {self.dtype}, {self.frames} frames"

    @property
    def sizes(self) -> ImageTowerSizes:
        """The tower's sizes."""
        return ImageTowerSizes(self.width, self.depth, self.heads, self.patch_size, self.image_size, self.embed_dim)


def cases(settings: Settings) -> list[Case]:
    """Both formats against their limit, the released code's way and transformers' CLIP."""
    if settings.config is not None or settings.overrides:
        raise ValueError("--system tvts: the encoder is measured at fixed sizes; leave out --config and settings")
    works = [Work(dtype, embedding_only) for embedding_only in (False, True) for dtype in DTYPES]
    return [case for work in works for case in cases_of(work)]


def cases_of(work: Work) -> list[Case]:
    """One work; the embedding alone against both limits."""
    case = case_of(work)
    if not work.embedding_only:
        return [case]
    whole = Variant(f"{MODULE}:limit", {"work": replace(work, embedding_only=False).__dict__})
    return [case, Case(f"{work.name}{WHOLE}", case.ours, limit=whole)]


def case_of(work: Work) -> Case:
    """The ways to do one work."""
    ours, naive, peer, limit = (
        Variant(f"{MODULE}:{name}", {"work": work.__dict__}) for name in ("ours", "naive", "peer", "limit")
    )
    return Case(work.name, ours, naive, peer, limit)


def ours(settings: Settings, work: dict[str, Any]) -> Callable[[], None]:
    """Our tower, prepared for inference."""
    tower = _Ours(Work(**work), tower_of(settings, Work(**work)).fold_for_inference())
    keep_freed_memory()  # not before: what building has freed would hide part of the peak
    return _forward(tower, pixels_of(settings, Work(**work)))


def naive(settings: Settings, work: dict[str, Any]) -> Callable[[], None]:
    """The released code's way, with our weights."""
    return _forward(NaiveTower(tower_of(settings, Work(**work))), pixels_of(settings, Work(**work)))


def peer(settings: Settings, work: dict[str, Any]) -> Callable[[], None]:
    """transformers' CLIP image tower of the same sizes, on the frames as images."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = Work(**work)
    config = CLIPVisionConfig(
        hidden_size=sizes.width,
        intermediate_size=4 * sizes.width,
        projection_dim=sizes.embed_dim,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        hidden_act="quick_gelu",
    )
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(config).eval().to(settings.device, DTYPES[sizes.dtype])
    return _forward(model, pixels_of(settings, sizes).flatten(0, 1))


def limit(settings: Settings, work: dict[str, Any]) -> MachineLimit:
    """What the machine could do of the products that we execute for this work."""
    keep_freed_memory()
    sizes = Work(**work)
    return MachineLimit(products_of(sizes), torch.device(settings.device), DTYPES[sizes.dtype])


def products_of(work: Work) -> Products:
    """The matrix products of our tower."""
    with torch.device("meta"):
        tower = VideoTower(work.sizes, work.frames, raw_patches=False).eval().fold_for_inference()
        return record(_Ours(work, tower), torch.empty(1, work.frames, 3, work.image_size, work.image_size))


def tower_of(settings: Settings, work: Work) -> VideoTower:
    """A tower whose attention over time is not that of a fresh one, which adds nothing."""
    torch.manual_seed(0)
    tower = VideoTower(work.sizes, work.frames, raw_patches=False).eval()
    for name, parameter in tower.named_parameters():
        if ".timeattn." in name:
            nn.init.normal_(parameter, std=0.02)
    return tower.to(settings.device, DTYPES[work.dtype])


def pixels_of(settings: Settings, work: Work) -> Tensor:
    """A clip of noise."""
    shape = (1, work.frames, 3, work.image_size, work.image_size)
    pixels = torch.empty(shape, device=settings.device, dtype=DTYPES[work.dtype])
    return pixels.normal_(generator=torch.Generator(settings.device).manual_seed(0))


class _Ours(nn.Module):
    """Our tower with all tokens, or for the embedding alone."""

    def __init__(self, work: Work, tower: VideoTower) -> None:
        super().__init__()
        self.embedding_only, self.tower = work.embedding_only, tower

    def forward(self, pixels: Tensor) -> Tensor:
        return self.tower(pixels, embedding_only=self.embedding_only).embedding


def _forward(encoder: nn.Module, pixels: Tensor) -> Callable[[], None]:
    def forward() -> None:
        with torch.no_grad():
            encoder(pixels)

    return forward
