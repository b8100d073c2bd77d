"""Encoders whose videos keep different numbers of tokens: in a batch they are what they are alone."""

import pytest
import torch
from torch import Tensor, nn

from configs.aggregation import AggregationConfig
from configs.models.umt import UMTConfig
from models.umt.video_encoder import VideoEncoder as UMTEncoder
from tests.models import tiny
from tests.models.runs import BY_SHARE, BY_THRESHOLD, FRAMES, PATCHES, RANDOM, VIDEO, WEIGHED, clips_of_runs

ENCODERS = ("testa joint", "testa divided", "umt")
JOINT = ("testa joint", "umt")


def encoder_of(name: str, aggregation: AggregationConfig, checkpointing: str = "none", depth: int = 2) -> nn.Module:
    if name != "umt":
        return tiny.encoder(name.removeprefix("testa "), aggregation, depth, video=VIDEO, checkpointing=checkpointing)
    model = UMTConfig(depth=depth, width=24, heads=3, patch_size=tiny.PATCH, pooling="all")
    torch.manual_seed(0)
    encoder = UMTEncoder(model, VIDEO, aggregation, activation_checkpointing=checkpointing)
    tiny.randomise(encoder)
    return encoder.eval()


def gradients(model: nn.Module, tokens: Tensor, video: Tensor) -> list[Tensor]:
    """Of a sum of squares of the tokens, to which padding of zeros adds nothing."""
    parameters = [parameter for name, parameter in model.named_parameters() if "pool_norm" not in name]
    return list(torch.autograd.grad(tokens.square().sin().sum(), [video, *parameters]))


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for own, other in zip(found, expected, strict=True):
        scale = other.abs().max().clamp(min=1.0)
        torch.testing.assert_close(own / scale, other / scale, atol=1e-5, rtol=1e-5)


def assert_equals_videos_alone(model: nn.Module, video: Tensor) -> None:
    """A batch's outputs and gradients equal those of its videos, each encoded alone; padding is zero."""
    together = model(video, return_origins=True)
    found = gradients(model, together.tokens, video)
    expected: list[Tensor] = []
    for row in range(len(video)):
        one = video[row : row + 1].detach().requires_grad_()
        alone = model(one, return_origins=True)
        count = alone.tokens.shape[1] if alone.mask is None else int(alone.mask.sum())
        torch.testing.assert_close(together.tokens[row, :count], alone.tokens[0, :count], atol=1e-5, rtol=1e-5)
        assert torch.equal(together.size[row, :count], alone.size[0, :count])
        assert torch.equal(together.origins[row], alone.origins[0])
        assert not together.tokens[row, count:].any() and not together.size[row, count:].any()
        assert not alone.tokens[0, count:].any()

        of_row = gradients(model, alone.tokens, one)
        of_row[0] = nn.functional.pad(of_row[0], (0, 0) * 4 + (row, len(video) - 1 - row))
        expected = [a + b for a, b in zip(expected, of_row, strict=True)] if expected else of_row
    assert_close(found, expected)

    # Without gradient attention takes other paths.
    with torch.no_grad():
        torch.testing.assert_close(model(video).tokens, together.tokens.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "aggregation", [BY_THRESHOLD, WEIGHED, BY_SHARE, RANDOM], ids=["threshold", "weighed", "share", "random"]
)
@pytest.mark.parametrize("name", ENCODERS)
def test_a_batch_equals_its_videos_alone(name: str, aggregation: AggregationConfig) -> None:
    model, video = encoder_of(name, aggregation), clips_of_runs().requires_grad_()
    together, alone = model(video).mask, model(video[:1]).mask
    assert (together is None) == (aggregation.keep is not None)
    assert alone is None or alone.all()
    assert_equals_videos_alone(model, video)


@pytest.mark.parametrize("name", ENCODERS)
def test_what_stays_equals_the_unreduced_encoder_over_those_tokens_alone(name: str) -> None:
    """A clip that changes everywhere keeps all; one that is still is its first frame with the times of that frame."""
    reduced, whole = encoder_of(name, BY_THRESHOLD), encoder_of(name, AggregationConfig())
    moving = torch.randn(2, FRAMES, 3, tiny.IMAGE, tiny.IMAGE, generator=torch.Generator().manual_seed(3))
    found = reduced(moving, return_origins=True)
    torch.testing.assert_close(found.tokens, whole(moving).tokens, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.origins, whole(moving, return_origins=True).origins)

    still = reduced(moving[:1, :1].expand(-1, FRAMES, -1, -1, -1), return_origins=True)
    classes = int(name != "umt")
    assert still.tokens.shape[1] == classes + PATCHES
    assert torch.equal(still.origins, (classes + torch.arange(PATCHES)).expand(1, FRAMES, -1))


@pytest.mark.parametrize("name", JOINT)
def test_tokens_equal_attention_over_an_explicit_selection(name: str) -> None:
    """The blocks of one clip run over its kept tokens, picked by hand; weighed lengths add log(length) to the keys."""
    for aggregation in (BY_THRESHOLD, WEIGHED):
        model, video = encoder_of(name, aggregation), clips_of_runs()[1:2]
        kept = model.kept_patches(video)
        state = hidden_state(model, video, kept.keep)
        size = kept.lengths.float() if aggregation.weigh_lengths else torch.ones(kept.lengths.shape)
        for block in blocks_of(model):
            state = plain_block(block, state, size)
        norm = model.norm if name != "umt" else model.encoder.norm
        torch.testing.assert_close(model(video).tokens, norm(state), atol=1e-5, rtol=1e-5)


def blocks_of(model: nn.Module) -> nn.ModuleList:
    return model.encoder.blocks if isinstance(model, UMTEncoder) else model.blocks


def hidden_state(model: nn.Module, video: Tensor, keep: Tensor) -> Tensor:
    """What enters the first block: the class token where there is one, then the patches at `keep`."""
    if isinstance(model, UMTEncoder):
        tokens = (model.encoder.patch_embed(video) + model.position).flatten(1, 2)
        return tokens[:, keep[0]]
    cls, tokens = model._embed(video)
    return torch.cat([cls, tokens.transpose(1, 2).flatten(1, 2)[:, keep[0]]], dim=1)


def plain_block(block: nn.Module, tokens: Tensor, size: Tensor) -> Tensor:
    """One block in its plain form; sizes (B, N) of patches, whose class token has 1."""
    size = nn.functional.pad(size, (tokens.shape[1] - size.shape[1], 0), value=1.0)
    context = plain_attention(block.attn, block.norm1(tokens), size)
    tokens = tokens + block.attn.proj(context)
    return tokens + block.mlp(block.norm2(tokens))


@pytest.mark.parametrize("name", ENCODERS)
def test_recomputation_changes_nothing(name: str) -> None:
    video = clips_of_runs()
    results = []
    for checkpointing in ("none", "recompute"):
        model, shown = encoder_of(name, BY_THRESHOLD, checkpointing).train(), video.clone().requires_grad_()
        tokens = model(shown).tokens
        results.append([tokens, *gradients(model, tokens, shown)])
    for own, other in zip(*results, strict=True):
        assert torch.equal(own, other)


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=pytest.mark.soak) for name in ENCODERS[:2]), "umt"],
)
def test_compiled_equals_eager(name: str) -> None:
    model, video = encoder_of(name, BY_THRESHOLD, depth=1), clips_of_runs()
    eager = model(video, return_origins=True)
    torch._dynamo.reset()
    model.compile(fullgraph=True, dynamic=False, backend="eager")
    kept = model.kept_patches(video)
    compiled = model(video, return_origins=True, kept=kept)
    count = eager.tokens.shape[1]
    assert compiled.tokens.shape[1] >= count
    torch.testing.assert_close(compiled.tokens[:, :count], eager.tokens, atol=1e-5, rtol=1e-5)
    assert torch.equal(compiled.origins, eager.origins)
    assert not compiled.tokens[:, count:].any()


@torch.no_grad()
@pytest.mark.parametrize("name", ENCODERS)
def test_bfloat16_and_folded(name: str) -> None:
    model, video = encoder_of(name, BY_THRESHOLD), clips_of_runs()
    expected = model(video)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(video)
    assert torch.equal(rounded.mask, expected.mask)
    assert (rounded.tokens - expected.tokens).abs().mean() < 0.05
    assert torch.equal((rounded.tokens != 0).any(dim=-1), expected.mask)
    folded = model.fold_for_inference(torch.float32)(video)
    torch.testing.assert_close(folded.tokens, expected.tokens, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ENCODERS)
def test_rows_of_many_tokens(name: str) -> None:
    """More than 256 tokens, whose attention goes in tiles on a CPU."""
    model = encoder_of(name, WEIGHED)
    video = clips_of_runs(batch=2, frames=30)
    together = model(video)
    assert together.tokens.shape[1] > 256
    for row in range(2):
        alone = model(video[row : row + 1]).tokens[0]
        torch.testing.assert_close(together.tokens[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)
    with torch.enable_grad():
        plain = model(video).tokens.detach()
    torch.testing.assert_close(together.tokens, plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ENCODERS)
def test_steps_tell_what_left(name: str) -> None:
    model, video = encoder_of(name, BY_THRESHOLD), clips_of_runs()[:1]
    steps: list = []
    encoded = model(video, return_origins=True, steps=steps)
    assert [len(of_block) for of_block in steps] == [1, 0]
    step = steps[0][0]
    assert step.axis == "joint" and step.compared.shape[1] == FRAMES * PATCHES
    assert not step.plan.weight.any()
    assert torch.equal(step.origins + int(name != "umt"), encoded.origins)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
@pytest.mark.parametrize("aggregation", [BY_THRESHOLD, WEIGHED], ids=["threshold", "weighed"])
@pytest.mark.parametrize("name", JOINT)
def test_packed_rows_equal_padded_ones(name: str, aggregation: AggregationConfig, drop_path: float) -> None:
    model, results = encoder_of(name, aggregation), []
    model.train(drop_path > 0)
    for block in blocks_of(model):
        block.drop_path.drop_prob = drop_path
    for packed in (True, False):
        video = clips_of_runs().requires_grad_()
        kept = model.kept_patches(video)
        assert kept.counts == (22, 44, 77)
        torch.manual_seed(5)
        tokens = model(video, kept=kept if packed else kept._replace(counts=None)).tokens
        results.append([tokens, *gradients(model, tokens, video)])
    assert_close(*results)


@pytest.mark.parametrize("temporal_scaling", [False, True])
@pytest.mark.parametrize("aggregation", [BY_THRESHOLD, WEIGHED], ids=["threshold", "weighed"])
def test_divided_attention_equals_masks_over_the_grid(aggregation: AggregationConfig, temporal_scaling: bool) -> None:
    """In plain form: all patches are computed, and those that left are hidden wherever others look."""
    model = tiny.encoder("divided", aggregation, video=VIDEO, temporal_scaling=temporal_scaling)
    video = clips_of_runs(batch=1)
    kept = model.kept_patches(video)
    cls, tokens = model._embed(video)
    lengths = torch.zeros(1, FRAMES * PATCHES).scatter(1, kept.keep, kept.lengths.float()).view(1, FRAMES, PATCHES)
    size = lengths if aggregation.weigh_lengths else (lengths > 0).float()
    assert not size[0].sum(dim=1).all(), "a frame without patches is among them"

    for block in model.blocks:
        update = torch.zeros_like(tokens)
        for patch in range(PATCHES):
            context = plain_attention(block.temporal_attn, block.temporal_norm1(tokens[:, :, patch]), size[:, :, patch])
            first = block.temporal_attn.proj(context)
            if temporal_scaling:
                first = first * (block.temporal_scaling.tanh() + 1)
            update[:, :, patch] = block.temporal_fc(first)
        tokens = tokens + update

        of_cls, within = [], torch.zeros_like(tokens)
        for frame in range(FRAMES):
            together = block.norm1(torch.cat([cls, tokens[:, frame]], dim=1))
            sizes = nn.functional.pad(size[:, frame], (1, 0), value=1.0)
            found = block.attn.proj(plain_attention(block.attn, together, sizes))
            within[:, frame] = found[:, 1:]
            if size[:, frame].any():
                of_cls.append(found[:, :1])
        cls, tokens = cls + torch.stack(of_cls).mean(dim=0), tokens + within
        cls, tokens = (part + block.mlp(block.norm2(part)) for part in (cls, tokens))

    left = tokens.flatten(1, 2)[:, kept.keep[0]]
    torch.testing.assert_close(model(video).tokens, model.norm(torch.cat([cls, left], dim=1)), atol=1e-5, rtol=1e-5)


def plain_attention(attention: nn.Module, tokens: Tensor, size: Tensor) -> Tensor:
    """Context (B, N, D) with log(size) added to the scores of keys."""
    query, key, value = (
        part.squeeze(2).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for part in attention._project(tokens.unsqueeze(2))
    )
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + size.log()[:, None, None]
    return (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
