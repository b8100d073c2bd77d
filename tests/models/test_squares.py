"""Encoders whose patches merge to squares before the first block: against loops, in batches, in other ways to run."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.base import ModelConfig
from configs.models.testa import TestaConfig
from configs.models.tvts import TvtsConfig
from configs.models.umt import UMTConfig
from configs.squares import squares_of_share
from inference.pictures.trace import similarity
from models.parts.quadtree import Trees
from models.systems import count
from models.testa.video_encoder import VideoEncoder as TestaEncoder
from models.umt.video_encoder import VideoEncoder as UMTEncoder
from tests.models import tiny
from tests.models.parts.test_quadtree import held_by, joined_by_sets, squares_by_recursion
from tests.models.runs import FRAMES, PATCHES
from tests.models.test_ragged import (
    JOINT,
    assert_close,
    assert_equals_videos_alone,
    blocks_of,
    encoder_of,
    gradients,
    plain_block,
)
from tests.models.test_ragged_models import close, model_of

SIDE = tiny.IMAGE // tiny.PATCH
IN_SPACE = AggregationConfig(reducer="quadtree", spatial_threshold=0.95)
IN_BOTH = AggregationConfig(reducer="quadtree", spatial_threshold=0.95, temporal_threshold=0.9)
BY_SHARE = AggregationConfig(reducer="quadtree", keep=0.4)
every_encoder = pytest.mark.parametrize("name", JOINT)
every_setting = pytest.mark.parametrize("aggregation", [IN_SPACE, IN_BOTH, BY_SHARE], ids=["space", "both", "share"])


def clips_of_squares(batch: int = 3, frames: int = FRAMES, size: int = tiny.IMAGE) -> Tensor:
    """Normalised clips (B, T, 3, H, W): quarters of a frame are even or not, and change, in each clip more often."""
    generator = torch.Generator().manual_seed(0)
    side = size // tiny.PATCH
    shown: list[Tensor] = []
    for frame in range(frames):
        share = torch.linspace(0.1, 0.6, batch)[:, None, None, None]
        even, uneven = (torch.randn(batch, 3, n, n, generator=generator) for n in (2, side))
        is_uneven, changes = (torch.rand(batch, 1, 2, 2, generator=generator) < share for _ in range(2))
        fine = torch.where(wide(is_uneven, side), uneven, wide(even, side))
        shown.append(fine if frame == 0 else torch.where(wide(changes, side), fine, shown[-1]))
    video = torch.stack(shown, dim=1).repeat_interleave(tiny.PATCH, 3).repeat_interleave(tiny.PATCH, 4)
    return video + 0.05 * torch.randn(video.shape, generator=generator)


def wide(quarters: Tensor, side: int) -> Tensor:
    return quarters.repeat_interleave(side // 2, -2).repeat_interleave(side // 2, -1)


def patches_of(model: nn.Module, video: Tensor) -> Tensor:
    """The patches' embeddings (B, T, L, D), without places."""
    if isinstance(model, nn.Module) and hasattr(model, "encoder"):
        return model.encoder.patch_embed(video)
    return model._project_patches(video)


def placed_patches(model: nn.Module, video: Tensor) -> Tensor:
    """What enters the first block without reduction (B, T, L, D)."""
    if hasattr(model, "encoder"):
        return model.encoder.patch_embed(video) + model.position
    return model._embed(video)[1]


@torch.no_grad()
@every_encoder
@pytest.mark.parametrize("weighs", [False, True])
def test_it_equals_squares_found_by_recursion(name: str, weighs: bool) -> None:
    """Means of the cells of each square by hand, then plain blocks; sizes are known to attention where asked for."""
    setting = IN_BOTH
    if name == "testa joint" and weighs:
        setting = AggregationConfig(**{**IN_BOTH.__dict__, "proportional_attention": True})
    model = encoder_of(name, setting)
    counts = set()
    for video in clips_of_squares().split(1):
        compared = patches_of(model, video).unflatten(2, (SIDE, SIDE))
        frames = [held_by(squares_by_recursion(frame, 0.95, 0), SIDE, SIDE) for frame in compared[0].double()]
        holders = torch.stack([frame + PATCHES * index for index, frame in enumerate(frames)])
        holders = joined_by_sets(Trees(holders[None], None), compared, 0.9).flatten(1)

        firsts = holders.unique()
        tokens = placed_patches(model, video)[0]
        means = torch.stack([tokens[holders == first].mean(dim=0) for first in firsts])[None]
        areas = torch.stack([(holders == first).sum() for first in firsts])[None].float()
        counts.add(len(firsts))
        state = means if name == "umt" else torch.cat([model._embed(video)[0], means], dim=1)
        known = areas if name == "umt" or weighs else torch.ones_like(areas)
        for block in blocks_of(model):
            state = plain_block(block, state, known)
        norm = model.norm if name == "testa joint" else model.encoder.norm

        found = model(video, return_origins=True)
        torch.testing.assert_close(found.tokens, norm(state), atol=1e-5, rtol=1e-5)
        classes = int(name == "testa joint")
        assert torch.equal(found.size[:, classes:], areas)
        assert torch.equal(firsts[found.origins[0] - classes], holders)
    assert len(counts) > 1, "clips are left with different numbers"


@every_encoder
@every_setting
def test_a_batch_equals_its_videos_alone(name: str, aggregation: AggregationConfig) -> None:
    assert_equals_videos_alone(encoder_of(name, aggregation), clips_of_squares().requires_grad_())


@every_encoder
def test_padded_rows_equal_packed_ones_and_recomputation_changes_nothing(name: str) -> None:
    results = []
    for packed, checkpointing in ((True, "none"), (False, "none"), (True, "recompute")):
        model, video = encoder_of(name, IN_BOTH, checkpointing).train(), clips_of_squares().requires_grad_()
        kept = model.kept_patches(video.detach())
        assert len(set(kept.counts)) > 1
        tokens = model(video, kept=kept if packed else kept._replace(counts=None)).tokens
        results.append([tokens, *gradients(model, tokens, video)])
    assert_close(results[1], results[0])
    assert all(torch.equal(own, other) for own, other in zip(results[2], results[0], strict=True))


@torch.no_grad()
@every_encoder
def test_a_share_is_met_from_below_in_rows_of_one_length(name: str) -> None:
    model, video = encoder_of(name, BY_SHARE), clips_of_squares()
    goal = squares_of_share(0.4, FRAMES, SIDE, SIDE, 0)[1]
    assert goal == int(0.4 * FRAMES * PATCHES)
    kept = model.kept_patches(video)
    assert kept.areas.shape == (3, goal) and (kept.areas.sum(dim=1) == FRAMES * PATCHES).all()
    assert ((kept.mask.sum(dim=1) <= goal) & (kept.mask.sum(dim=1) >= goal - 3)).all()

    # A still clip ties everywhere, and is left with fewer.
    still = model(video[:1, :1].expand(-1, FRAMES, -1, -1, -1))
    assert still.tokens.shape[1] == goal + int(name == "testa joint") and still.mask.sum() < goal
    whole = encoder_of(name, AggregationConfig())
    torch.testing.assert_close(
        encoder_of(name, AggregationConfig(reducer="quadtree", keep=1.0))(video).tokens.sort(dim=1).values,
        whole(video).tokens.sort(dim=1).values,
        atol=1e-5,
        rtol=1e-5,
    )


@torch.no_grad()
@every_encoder
def test_compiled_bfloat16_and_folded(name: str) -> None:
    model, video = encoder_of(name, IN_BOTH, depth=1), clips_of_squares()
    expected = model(video, return_origins=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(video)
    assert torch.equal(rounded.mask, expected.mask) and (rounded.tokens - expected.tokens).abs().mean() < 0.05

    torch._dynamo.reset()
    model.compile(fullgraph=True, dynamic=False, backend="eager")
    compiled = model(video, return_origins=True, kept=model.kept_patches(video))
    number = expected.tokens.shape[1]
    torch.testing.assert_close(compiled.tokens[:, :number], expected.tokens, atol=1e-5, rtol=1e-5)
    assert torch.equal(compiled.origins, expected.origins) and not compiled.tokens[:, number:].any()

    folded = encoder_of(name, IN_BOTH, depth=1).fold_for_inference(torch.float32)(video)
    torch.testing.assert_close(folded.tokens, expected.tokens, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@every_encoder
def test_steps_tell_what_merged(name: str) -> None:
    model, video = encoder_of(name, IN_BOTH), clips_of_squares()[:1]
    steps: list = []
    encoded = model(video, return_origins=True, steps=steps)
    assert [len(of_block) for of_block in steps] == [1, 0]
    step, classes = steps[0][0], int(name == "testa joint")
    assert torch.equal(step.origins + classes, encoded.origins)
    assert step.plan.keep.shape[1] + step.plan.source.shape[1] == FRAMES * PATCHES
    assert step.plan.keep.shape[1] + classes == encoded.tokens.shape[1]

    # Every source goes where its origin says.
    order = torch.arange(FRAMES * PATCHES)
    cells = order.view(PATCHES, FRAMES).T if classes else order.view(FRAMES, PATCHES)
    places = torch.empty_like(order)
    places[cells.flatten()] = step.origins[0].flatten()
    assert torch.equal(places[step.plan.source[0]], step.plan.destination[0])
    assert torch.equal(places[step.plan.keep[0]], torch.arange(step.plan.keep.shape[1]))
    found = similarity(1, step)
    assert found.merged is not None and found.merged > found.others


@torch.no_grad()
@pytest.mark.parametrize("system", JOINT)
def test_texts_see_a_videos_own_tokens(system: str) -> None:
    for aggregation in (IN_BOTH, BY_SHARE):
        model, video = model_of(system, aggregation), clips_of_squares()
        ids, mask = tiny.texts((9, 4, 6))
        together = model.encode_video(video)
        matches = model.match(together.tokens, ids, mask)
        for row in range(3):
            alone = model.encode_video(video[row : row + 1])
            close(together.embedding[row], alone.embedding[0])
            close(matches[row], model.match(alone.tokens, ids[row : row + 1], mask[row : row + 1])[0])

        # uint8 pixels decide as their normalised ones do.
        pixels = (video * 40 + 128).clamp(0, 255).byte()
        close(model.encode_video(pixels).embedding[:1], model.encode_video(pixels[:1]).embedding)


@torch.no_grad()
@every_encoder
def test_the_cost_is_that_of_what_is_executed(name: str) -> None:
    aggregation = AggregationConfig(reducer="quadtree", keep=0.4)
    sizes, video = {"depth": 2, "width": 192, "heads": 3, "patch_size": 8}, VideoConfig(num_frames=8, image_size=64)
    model: ModelConfig = UMTConfig(pooling="all", **sizes)
    if name == "testa joint":
        model = TestaConfig(attention="joint", **sizes)
    build = UMTEncoder if name == "umt" else TestaEncoder
    encoder, pixels = build(model, video, aggregation).requires_grad_(False).eval(), torch.randn(1, 8, 3, 64, 64)
    assert encoder.kept_patches(pixels).counts is None, "no padding"

    cost = count(model, video, aggregation)
    norms = {torch.ops.aten.native_layer_norm: lambda shape, *_, **__: 10 * torch.Size(shape).numel()}
    with FlopCounterMode(display=False, custom_mapping=norms) as counter, torch.enable_grad():
        tokens = encoder(pixels).tokens
        if name == "umt":
            encoder.pool(tokens, 8)
    assert cost.executed_gmacs == pytest.approx(counter.get_total_flops() / 2e9, abs=0.0006) and cost.gmacs > 0.2
    assert cost.tokens == tokens.shape[1]
    with pytest.raises(ValueError, match="the content of each video decides"):
        count(model, video, IN_BOTH)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"keep": 0.01},
            "aggregation.keep: 0.01 of 8 x 4 x 4 patches is less than the coarsest squares, 2 x 2 a frame",
        ),
        ({"root_level": 2}, "aggregation.root_level: 2 is beyond the 2 levels"),
        ({"root_level": -1}, "root_level: -1 is negative"),
        ({"spatial_threshold": 1.5}, "spatial_threshold: 1.5 is no cosine"),
        ({"keep": 0.5, "temporal_threshold": 0.5}, "temporal_threshold: has no effect beside keep"),
        ({"tokens_per_block": 3}, "tokens_per_block: 3 has no effect with reducer 'quadtree'"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UMTConfig(pooling="all").check(
            VideoConfig(num_frames=8, image_size=64), AggregationConfig(reducer="quadtree", **settings)
        )


@pytest.mark.parametrize("model", [TestaConfig(), TvtsConfig()])
def test_divided_attention_says_why_it_cannot(model: ModelConfig) -> None:
    with pytest.raises(ValueError, match="'quadtree' does not go with divided .* squares of its own"):
        model.check(VideoConfig(num_frames=8, image_size=64), IN_BOTH)
    with pytest.raises(ValueError, match="model.pooling: frames has no meaning"):
        UMTConfig(pooling="frames").check(VideoConfig(num_frames=8, image_size=64), IN_BOTH)


def test_a_price_is_one_knob() -> None:
    video = VideoConfig(num_frames=8, image_size=64)
    for model in (UMTConfig(pooling="all"), TestaConfig(attention="joint")):
        reduced = model.at_price(AggregationConfig(reducer="quadtree"), video, ("tokens",), 32)
        assert reduced.keep == 0.75
        model.check(video, reduced)
