"""Run-length tokens that merge inside the blocks: a plain loop over videos, and what holds however they are run."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.testa import TestaConfig
from configs.models.umt import UMTConfig
from models.parts.merging import follow
from models.testa.cost import _class_token_matches
from models.testa.video_encoder import VideoEncoder as TestaEncoder
from tests.models import tiny
from tests.models.runs import BY_SHARE, FRAMES, PATCHES, VIDEO, clips_of_runs
from tests.models.test_ragged import (
    JOINT,
    assert_close,
    assert_equals_videos_alone,
    blocks_of,
    encoder_of,
    gradients,
    hidden_state,
    plain_attention,
)
from tests.models.test_ragged_models import close, model_of

KEEP, LEFT = 0.6, 58
"""The share of 6 x 16 patches, and how many it is."""
SCHEDULE, SHARES = (20, 0, 7), (0.25, 3)
TOME = AggregationConfig(reducer="run_length", keep=KEEP, inside="tome", tokens_per_block=SCHEDULE)
SALIENCY = AggregationConfig(reducer="run_length", keep=KEEP, inside="saliency", tokens_per_block=SHARES)


def of(inside: str, **settings: Any) -> AggregationConfig:
    amounts = SCHEDULE if inside == "tome" else SHARES
    return AggregationConfig(
        reducer="run_length", inside=inside, **{"keep": KEEP, "tokens_per_block": amounts, **settings}
    )


CASES = {
    "tome": of("tome"),
    "tome, lengths": of("tome", weigh_lengths=True),
    "tome by saliency": of("tome", merge_weight="saliency"),
    "tome, proportional": of("tome", proportional_attention=True),
    "saliency": of("saliency"),
    "saliency, lengths": of("saliency", weigh_lengths=True),
}
PAIRS = [(name, case) for name in JOINT for case in CASES if (name, case) != ("umt", "tome, proportional")]


def kept_by_hand(video_TCHW: Tensor, patch_major: bool) -> tuple[list[tuple[int, int]], Tensor]:
    """The cells (frame, patch) that stay, in the encoder's order, and for each cell (T, L) which of them holds it."""
    side = tiny.IMAGE // tiny.PATCH
    cells = [(frame, patch) for frame in range(FRAMES) for patch in range(PATCHES)]

    def pixels(frame: int, patch: int) -> Tensor:
        row, column = (tiny.PATCH * place for place in divmod(patch, side))
        return video_TCHW[frame, :, row : row + tiny.PATCH, column : column + tiny.PATCH]

    changes = {}
    for frame, patch in cells:
        change = (pixels(frame, patch) - pixels(frame - 1, patch)).abs().mean().item() if frame else math.inf
        changes[frame, patch] = change
    stays = set(sorted(cells, key=lambda cell: -changes[cell])[:LEFT])

    ordered = sorted(stays, key=lambda cell: cell[::-1]) if patch_major else sorted(stays)
    held_by = torch.empty(FRAMES, PATCHES, dtype=torch.int64)
    for frame, patch in cells:
        since = max(earlier for earlier in range(frame + 1) if (earlier, patch) in stays)
        held_by[frame, patch] = ordered.index((since, patch))
    return ordered, held_by


def plain(
    name: str, model: nn.Module, video: Tensor, settings: AggregationConfig
) -> tuple[Tensor, list[float], Tensor]:
    """Tokens (1, M, D), sizes of the patches' ones and origins (T, L) of one video: pick, then merge block by block."""
    kept, held_by = kept_by_hand(video[0].detach(), patch_major=name != "umt")
    place = [patch * FRAMES + frame if name != "umt" else frame * PATCHES + patch for frame, patch in kept]
    lengths = [float((held_by == token).sum()) for token in range(len(kept))]
    size = torch.tensor(lengths if settings.weigh_lengths else [1.0] * len(kept))
    state = hidden_state(model, video, torch.tensor([place]))
    classes = int(name != "umt")
    knows = name == "umt" or settings.weigh_lengths or settings.proportional_attention or settings.inside == "saliency"

    amounts = settings.tokens_per_block
    assert isinstance(amounts, tuple)
    for index, block in enumerate(blocks_of(model)):
        normed = block.norm1(state)
        biases = F.pad(size if knows else torch.ones_like(size), (classes, 0), value=1.0)
        state = state + block.attn.proj(plain_attention(block.attn, normed, biases[None]))

        amount = amounts[index] if index < len(amounts) else 0
        leaving = int(amount * len(size)) if isinstance(amount, float) else amount
        if leaving:
            tokens, size, slots = plain_merge(settings, block.attn, normed, state, size, leaving, classes)
            state = torch.cat([state[:, :classes], tokens[None]], dim=1)
            held_by = torch.where(held_by < 0, -1, slots[held_by.clamp(min=0)])
        state = state + block.mlp(block.norm2(state))

    norm = model.norm if name != "umt" else model.encoder.norm
    return norm(state), size.tolist(), torch.where(held_by < 0, -1, held_by + classes)


def plain_merge(
    settings: AggregationConfig,
    attention: nn.Module,
    normed: Tensor,
    state: Tensor,
    size: Tensor,
    leaving: int,
    classes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """One video's tokens (M', D) and sizes after merging, source by source, and where each token went; -1: dropped."""
    query, key, _ = (
        part[0, classes:, 0].detach().unflatten(-1, (attention.heads, -1))
        for part in attention._project(normed.unsqueeze(2))
    )
    # How sharply tokens attend to each other, relative to the mean and the sharpest.
    scores = torch.einsum("qhk,phk->hqp", query, key) * query.shape[-1] ** -0.5
    attended = scores.softmax(dim=-1).mean(dim=0)
    sharp = (attended * attended.log()).sum(dim=-1)
    saliency = ((sharp - sharp.mean()) / (sharp.max() - sharp.mean())).clamp(0, 1)

    tokens = state[0, classes:]
    compared = tokens.detach() if settings.inside == "saliency" else key.mean(dim=1)
    unit = F.normalize(compared.double(), dim=-1)
    count = len(tokens)
    in_a, in_b = list(range(count))[classes::2], list(range(count))[1 - classes :: 2]
    similar = unit[in_a] @ unit[in_b].T
    gone = similar.max(dim=-1).values.argsort(descending=True, stable=True)[:leaving].tolist()

    order = [in_a[index] for index in range(len(in_a)) if index not in gone] + in_b
    weight = saliency if settings.inside == "saliency" else torch.ones(count)
    counts_for = saliency.clamp(min=0.1) if settings.merge_weight == "saliency" else torch.ones(count)
    mass = [size[token] * counts_for[token] for token in range(count)]
    total = [tokens[token] * mass[token] for token in range(count)]
    sizes, slots = list(size), torch.full((count,), -1)
    slots[order] = torch.arange(len(order))
    for index in gone:
        source, destination = in_a[index], in_b[int(similar[index].argmax())]
        total[destination] = total[destination] + weight[source] * mass[source] * tokens[source]
        mass[destination] = mass[destination] + weight[source] * mass[source]
        sizes[destination] = sizes[destination] + weight[source] * size[source]
        slots[source] = slots[destination] if weight[source] > 0 else -1
    means = [total[token] / mass[token] for token in order]
    return torch.stack(means), torch.stack([sizes[token] for token in order]), slots


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_output_and_gradient_equal_a_plain_loop(name: str, case: str) -> None:
    settings = CASES[case]
    model, video = encoder_of(name, settings, depth=3), clips_of_runs().requires_grad_()
    found = model(video, return_origins=True)
    assert found.mask is None
    expected: list[Tensor] = []
    for row in range(len(video)):
        one = video[row : row + 1].detach().requires_grad_()
        tokens, sizes, origins = plain(name, model, one, settings)
        torch.testing.assert_close(found.tokens[row], tokens[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.size[row], torch.tensor([1.0] * (name != "umt") + sizes))
        assert torch.equal(found.origins[row], origins)
        of_row = gradients(model, tokens, one)
        of_row[0] = F.pad(of_row[0], (0, 0) * 4 + (row, len(video) - 1 - row))
        expected = [a + b for a, b in zip(expected, of_row, strict=True)] if expected else of_row
    assert_close(gradients(model, found.tokens, video), expected)


@pytest.mark.parametrize("settings", [TOME, SALIENCY], ids=["tome", "saliency"])
@pytest.mark.parametrize("name", JOINT)
def test_a_batch_equals_its_videos_alone_and_recomputation_changes_nothing(
    name: str, settings: AggregationConfig
) -> None:
    model, video = encoder_of(name, settings, depth=3), clips_of_runs()
    assert_equals_videos_alone(model, video.clone().requires_grad_())

    results = []
    for checkpointing in ("none", "recompute"):
        trained = encoder_of(name, settings, checkpointing, depth=3).train()
        shown = video.clone().requires_grad_()
        tokens = trained(shown).tokens
        results.append([tokens, *gradients(trained, tokens, shown)])
    for own, other in zip(*results, strict=True):
        assert torch.equal(own, other)


@torch.no_grad()
@pytest.mark.parametrize("name", JOINT)
def test_without_amounts_it_is_run_length_alone_to_the_bit(name: str) -> None:
    video = clips_of_runs()
    extra: list[dict[str, Any]] = [{"inside": "tome"}, {"inside": "saliency"}]
    if name != "umt":
        extra.append({"inside": "tome", "proportional_attention": True})
    for weighs in (False, True):
        alone = encoder_of(name, AggregationConfig(reducer="run_length", keep=KEEP, weigh_lengths=weighs))
        expected = alone(video, return_origins=True)
        for settings in extra[: 2 if weighs else None]:
            inside = AggregationConfig(reducer="run_length", keep=KEEP, weigh_lengths=weighs, **settings)
            found = encoder_of(name, inside)(video, return_origins=True)
            assert torch.equal(found.tokens, expected.tokens)
            assert torch.equal(found.size, expected.size) and torch.equal(found.origins, expected.origins)


@torch.no_grad()
@pytest.mark.parametrize("name", JOINT)
def test_steps_compose_to_the_origins(name: str) -> None:
    model, steps = encoder_of(name, TOME, depth=3), []
    encoded = model(clips_of_runs()[1:2], return_origins=True, steps=steps)
    assert [len(of_block) for of_block in steps] == [2, 0, 1]

    cells = torch.arange(FRAMES * PATCHES)
    cells = cells.view(PATCHES, FRAMES).T if name != "umt" else cells.view(FRAMES, PATCHES)
    held, count = cells[None], FRAMES * PATCHES
    for step in (step for of_block in steps for step in of_block):
        assert step.axis == "joint" and step.compared.shape[1] == count
        held = follow(held, step.plan._replace(weight=None), count, 1)
        count = step.plan.keep.shape[1]
        assert torch.equal(held, step.origins)
    assert count == LEFT - 27 == encoded.tokens.shape[1] - int(name != "umt")
    assert torch.equal(held + int(name != "umt"), encoded.origins)
    assert encoded.size[0].sum() == LEFT + int(name != "umt")


@torch.no_grad()
@pytest.mark.parametrize("name", [pytest.param("testa joint", marks=pytest.mark.soak), "umt"])
def test_compiled_equals_eager(name: str) -> None:
    model, video = encoder_of(name, of("tome", tokens_per_block=20), depth=1), clips_of_runs()
    eager = model(video, return_origins=True)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    found = compiled(video, return_origins=True, kept=model.kept_patches(video))
    close(found.tokens, eager.tokens)
    assert torch.equal(found.origins, eager.origins)


@torch.no_grad()
@pytest.mark.parametrize("name", JOINT)
def test_folded_equals_unfolded(name: str) -> None:
    model, video = encoder_of(name, TOME, depth=3), clips_of_runs()
    expected = model(video).tokens
    close(model.fold_for_inference(torch.float32)(video).tokens, expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("system", "settings", "weighs"),
    [
        ("testa joint", {}, False),
        ("testa joint", {"weighted_pooling": True}, True),
        ("testa joint", {"weigh_lengths": True}, True),
        ("umt", {}, False),
        ("umt", {"weigh_lengths": True}, True),
    ],
)
def test_pooling_weighs_by_size_where_it_is_to(system: str, settings: dict[str, Any], weighs: bool) -> None:
    model = model_of(system, of("tome", tokens_per_block=12, **settings))
    video = (clips_of_runs()[1:2] * 40 + 128).clamp(0, 255).byte()
    traced = model.trace_video(video)
    size = traced.size if weighs else torch.ones_like(traced.size)
    assert traced.size.max() > 1
    mean = (traced.tokens * size.unsqueeze(-1)).sum(dim=1) / size.sum(dim=1, keepdim=True)
    if system == "umt":
        mean = model.vision_encoder.pool_norm(mean)
    elif not weighs:
        assert not model.weighted_pooling
    close(model.encode_video(video).embedding, F.normalize(model.vision_proj(mean), dim=-1))


@torch.no_grad()
def test_a_short_clip_caps_what_merges() -> None:
    model = tiny.encoder("joint", TOME, depth=3, video=VIDEO)
    assert model.capped(FRAMES, PATCHES) == []
    assert model.capped(4, 4) == ["tokens to leave per block (20, 0, 7), but 10 tokens hold only (5, 0, 2)"]
    encoded = model(tiny.clips(2, 4, 8, 8))
    assert encoded.tokens.shape[1] == 1 + 10 - 5 - 2


def test_the_class_token_is_counted_with_the_tokens_that_reach_each_block() -> None:
    model = TestaConfig(attention="joint", depth=3, width=32, heads=2, patch_size=tiny.PATCH)
    with torch.device("meta"):
        encoder = TestaEncoder(model, VIDEO, TOME)
    assert _class_token_matches(encoder, FRAMES) == 16 * (58 // 2 + 38 // 2)  # 58 lose 20, then 38 lose 7


DIVIDED, JOINT_TESTA = TestaConfig(), TestaConfig(attention="joint")
UMT = UMTConfig(pooling="all")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens_per_block": 3}, r"tokens_per_block: 3 has no effect .*inside 'none'; set that to tome or saliency"),
        ({"tokens_per_block": 0.3}, "tokens_per_block: 0.3 has no effect .*set that to tome or saliency"),
        ({"merge_weight": "saliency"}, "merge_weight: saliency has no effect .*'none'; set that to tome"),
        ({"inside": "saliency", "merge_weight": "saliency"}, "merge_weight: saliency .*'saliency'; set that to tome"),
        ({"inside": "tome", "tokens_per_block": 0.3}, "tokens_per_block: 0.3 is no whole number; .* for saliency"),
        ({"inside": "tome", "patches_per_block": 3}, "patches_per_block: 3 has no effect with reducer 'run_length'"),
        ({"inside": "tome", "tokens_per_block": -3}, "tokens_per_block: -3 is negative"),
        ({"inside": "tome", "threshold": 0.2}, "either the threshold or keep"),
        ({"inside": "saliency", "proportional_attention": True}, "leave it out; 'saliency' always has it"),
        ({"inside": "tome", "weigh_lengths": True, "proportional_attention": True}, "weigh_lengths includes it"),
        ({"inside": "tome", "weigh_lengths": True, "weighted_pooling": True}, "weigh_lengths includes it"),
        ({"reducer": "tome", "inside": "tome"}, "inside: tome has no effect with reducer 'tome'"),
        ({"reducer": "quadtree", "inside": "tome"}, "inside: tome has no effect with reducer 'quadtree'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AggregationConfig(**{"reducer": "run_length", "keep": 0.5, **settings})


@pytest.mark.parametrize("model", [JOINT_TESTA, UMT], ids=["testa", "umt"])
def test_what_an_encoder_cannot_do_is_refused(model: TestaConfig | UMTConfig) -> None:
    video = VideoConfig(num_frames=8)
    model.check(video, of("tome", tokens_per_block=(400, 100)) if model is UMT else of("tome", tokens_per_block=40))
    with pytest.raises(ValueError, match=r"aggregation.inside: tome needs videos of .*set aggregation.keep, or inside"):
        model.check(video, AggregationConfig(reducer="run_length", inside="tome", tokens_per_block=3))
    with pytest.raises(ValueError, match=r"tokens_per_block: block 0 is to lose 500 of the 941 tokens .* at most 470"):
        model.check(video, of("tome", tokens_per_block=500))
    with pytest.raises(ValueError, match=r"aggregation.keep: 0.1 of 8 frames"):
        model.check(video, of("tome", keep=0.1))


def test_divided_attention_refuses_it() -> None:
    for settings in (of("tome"), of("saliency", tokens_per_block=0)):
        with pytest.raises(ValueError, match=r"aggregation.inside: .*divided attention .*joint attention"):
            DIVIDED.check(VideoConfig(num_frames=8), settings)
    assert BY_SHARE.in_blocks == "none" and TOME.in_blocks == "tome" and AggregationConfig(reducer="tome").in_blocks
