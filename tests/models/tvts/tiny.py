"""TVTSv2 models of a few thousand parameters."""

import torch

from configs.schema import AggregationConfig
from models.parts.clip.sizes import ImageTowerSizes, TextTowerSizes
from models.tvts.aggregation import ClipSchedules
from models.tvts.model import Tvts
from models.tvts.sizes import TvtsSizes
from models.tvts.video_tower import VideoTower

IMAGE = ImageTowerSizes(width=24, depth=3, heads=3, patch_size=4, image_size=16, embed_dim=16)
TEXT = TextTowerSizes(width=16, depth=4, heads=2, embed_dim=16, context=12, vocab_size=50)
SIZES = TvtsSizes(IMAGE, TEXT, num_frames=6, mask_ratio=0.5, sort_heads=2)


def make_tower(raw_patches: bool = False, num_frames: int = 6, **aggregation: object) -> VideoTower:
    """A tower whose attention over time is not zero, as it would be when fresh."""
    torch.manual_seed(0)
    schedules = None
    if aggregation:
        schedules = ClipSchedules.of(AggregationConfig(**aggregation), IMAGE, num_frames)
    return with_time(VideoTower(IMAGE, 6, raw_patches, schedules)).eval()


def with_time(tower: VideoTower) -> VideoTower:
    generator = torch.Generator().manual_seed(1)
    for block in tower.blocks:
        for parameter in (block.timeattn.qkv.weight, block.timeattn.qkv.bias, block.timeattn.proj.weight):
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return tower


def make_model(sorting: bool = True) -> Tvts:
    torch.manual_seed(0)
    model = Tvts(SIZES, sorting=sorting)
    with_time(model.video_model)
    return model


def make_video(batch: int = 2, frames: int = 6, size: int = 16) -> torch.Tensor:
    return torch.randn(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(2))
