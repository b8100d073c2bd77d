"""Encoding in chunks equals encoding as a whole at the lengths that chunks are for, in every divided encoder.

Short clips, with every reducer, are in testa/test_long_video.py and tvts/test_long_clip.py.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.parts.chunks import BYTES_PER_NUMBER, GIB, WIDTHS_PER_TOKEN, Chunks, chunks_within
from models.parts.clip.sizes import ImageTowerSizes
from models.testa.video_encoder import VideoEncoder
from models.tvts.aggregation import ClipSchedules
from models.tvts.video_tower import VideoTower
from tests.models.tiny import PATCH, WIDTH, clips, encoder
from tests.models.tvts.tiny import make_tower, with_time

HOUR, SMALL_IMAGE, SMALL_PATCHES = 3600, 2 * PATCH, 4
FRAMES, IMAGE = 256, 224
MERGING: dict[str, dict] = {
    "no merging": {},
    "merging": {"reducer": "geometry", "frames_per_block": HOUR // 16, "patches_per_block": 1},
}


def memory_for(tokens: int, width: int) -> float:
    """The working memory, in GiB, of steps on this many tokens."""
    return tokens * WIDTHS_PER_TOKEN * BYTES_PER_NUMBER * width / GIB


def tiny(system: str, merging: dict, working_memory: float) -> nn.Module:
    if system == "testa":
        video = VideoConfig(num_frames=HOUR, image_size=SMALL_IMAGE, working_memory=working_memory)
        return encoder(aggregation=AggregationConfig(**merging), video=video)
    tower = make_tower(num_frames=HOUR, **merging)
    tower.working_memory = working_memory
    return tower


def gradients(model: nn.Module, video: Tensor) -> dict[str, Tensor]:
    """The gradient of each parameter, of a mean in which channels weigh differently."""
    model.zero_grad()
    tokens = model(video).tokens
    (tokens.square() * torch.linspace(0, 1, tokens.shape[-1])).mean().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


def check(
    build: Callable[[float], nn.Module], video: Tensor, tokens_at_once: int, width: int, tolerance: float = 1e-5
) -> None:
    """Compare an encoder that takes the video whole with one that takes so many tokens at a time.

    `tolerance` is a share of the largest number of the output, and of each gradient.
    """
    results = []
    for working_memory in (1000.0, memory_for(tokens_at_once, width)):
        model = build(working_memory)
        with torch.no_grad():
            encoded = model(video, return_origins=True)
        results.append((encoded.tokens, encoded.size, encoded.origins, gradients(model, video)))
        del model, encoded

    (expected, size, origins, expected_gradients), (found, found_size, found_origins, found_gradients) = results
    assert torch.equal(found_origins, origins)
    assert_close(found_size, size)
    assert_close(found, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))
    assert found_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        limit = tolerance * float(gradient.abs().max()) + 1e-4 * tolerance
        off = float((found_gradients[name] - gradient).abs().max())
        assert off <= limit, f"{name}: {off} apart, where {limit} is allowed"


@pytest.mark.parametrize("merging", MERGING)
@pytest.mark.parametrize(("system", "width"), [("testa", WIDTH), ("tvts", 24)])
def test_an_hour_in_ragged_chunks(system: str, width: int, merging: str) -> None:
    tokens_at_once = 3 * HOUR
    chunks = chunks_within(memory_for(tokens_at_once, width), HOUR, SMALL_PATCHES, width)
    assert chunks == Chunks(frames=2700, patches=3), "the last chunk is not shorter than the others"
    video = clips(1, HOUR, SMALL_IMAGE, SMALL_IMAGE)
    check(lambda memory: tiny(system, MERGING[merging], memory), video, tokens_at_once, width)


@pytest.mark.parametrize("merging", MERGING)
@pytest.mark.parametrize("system", ["testa", "tvts"])
def test_float64_is_not_rounded_to_float32(system: str, merging: str) -> None:
    """In either way of encoding: what is summed in float32 for bfloat16's sake stays in float64 here."""
    settings = {**MERGING[merging], **({"frames_per_block": 1} if merging == "merging" else {})}

    def build(working_memory: float) -> nn.Module:
        return full_size(system, settings, working_memory, 2, frames=12, image=32).double()

    check(build, clips(1, 12, 32, 32).double(), 6 * 4, 768, tolerance=1e-12)


def full_size(
    system: str, merging: dict, working_memory: float, depth: int, frames: int = FRAMES, image: int = IMAGE
) -> nn.Module:
    """Blocks of ViT-B/16, in training mode, with weights of which all have an effect."""
    torch.manual_seed(0)
    if system == "testa":
        model = TestaConfig(depth=depth, drop_path=0.0)
        video = VideoConfig(num_frames=frames, image_size=image, working_memory=working_memory)
        built: nn.Module = VideoEncoder(model, video, AggregationConfig(**merging), "recompute")
        for name, parameter in built.named_parameters():
            if name.endswith("temporal_fc.weight"):
                nn.init.trunc_normal_(parameter, std=0.02)
        return built.train()

    sizes = ImageTowerSizes(width=768, depth=depth, heads=12, patch_size=16, image_size=image, embed_dim=512)
    schedules = ClipSchedules.of(AggregationConfig(**merging), sizes, frames) if merging else None
    tower = with_time(VideoTower(sizes, 12, False, schedules, working_memory=working_memory))
    tower.recompute = True
    return tower.train()


@pytest.mark.soak
@pytest.mark.parametrize("merging", MERGING)
@pytest.mark.parametrize("system", ["testa", "tvts"])
def test_256_frames_of_full_size(system: str, merging: str) -> None:
    """In float64, output and gradient of two blocks: some ten minutes of one thread, and 13 GiB.

    float32 could not tell a fault from rounding here. Of hundreds of thousands of choices what merges with what, some
    are closer than it rounds, and each changes all that follows; and its gradients are sums over 50,000 tokens, as far
    from float64's without chunks as with them.
    """
    settings = scaled_down(MERGING[merging])
    video = clips(1, FRAMES, IMAGE, IMAGE).double()
    # 57 frames, of which the last chunk has 28; 43 places, of which it has 24.
    check(lambda memory: full_size(system, settings, memory, 2).double(), video, 57 * 196, 768, tolerance=1e-9)


@pytest.mark.soak
@pytest.mark.parametrize("system", ["testa", "tvts"])
def test_float32_output_of_full_size(system: str) -> None:
    """All twelve blocks, without merging: some ten minutes of one thread."""
    video = clips(1, FRAMES, IMAGE, IMAGE)
    with torch.no_grad():
        expected, found = (
            full_size(system, {}, memory, depth=12)(video).tokens for memory in (1000.0, memory_for(57 * 196, 768))
        )
    assert_close(found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


def scaled_down(merging: dict) -> dict:
    """The same share of these frames, and 12 of 196 patches."""
    return {**merging, "frames_per_block": FRAMES // 16, "patches_per_block": 12} if merging else {}
