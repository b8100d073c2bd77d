"""UMT's encoder against plain formulas, and in its other ways to run."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.umt import SplitTextConfig, UMTConfig
from models.umt.blocks import JointSpaceTimeBlock
from models.umt.video_encoder import EncodedVideo, VideoEncoder
from tests.gloo import run_ranks
from tests.models.umt.tiny import SCHEDULE, clips, encoder

# README's lists at 12 frames of 224 pixels, B/16 and L/16, and the tokens they leave.
LISTS = {
    "base": {(): 2352, (600, 200, 100): 1452, (450, 250, 200): 1452, (500,): 1852, (250, 150, 150, 150): 1652,
             (400, 150, 150): 1652, (200, 200, 200, 100): 1652, (400, 300): 1652, (600, 200): 1552},
    "large": {(550, 400): 1402, (600, 200, 100, 100): 1352, (600, 300): 1452, (800, 100): 1452,
              (250, 250, 200, 200): 1452, (450, 250, 100): 1552, (350, 300, 100, 50): 1552, (400, 400, 100): 1452},
}  # fmt: skip


def plain_block(block: JointSpaceTimeBlock, tokens: Tensor, size: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """One block as the paper writes it: the whole map, a full sort, a loop over samples and sources."""
    attention = block.attn
    bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    projected = F.linear(block.norm1(tokens), attention.qkv.weight, bias)
    query, key, value = (part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in projected.chunk(3, -1))
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    context = (scores + size.log()[:, None, None]).softmax(dim=-1) @ value
    tokens = tokens + attention.proj(context.transpose(1, 2).flatten(2))
    if r:
        mean_map = scores.softmax(dim=-1).mean(dim=1).detach()
        sharp = (mean_map * mean_map.log()).sum(dim=-1)
        mean = sharp.mean(dim=-1, keepdim=True)
        weight = ((sharp - mean) / (sharp.amax(dim=-1, keepdim=True) - mean)).clamp(0, 1)
        merged = [plain_merge(*sample, r) for sample in zip(tokens, size, weight, strict=True)]
        tokens, size = (torch.stack(part) for part in zip(*merged, strict=True))
    return tokens + block.mlp(block.norm2(tokens)), size


def plain_merge(tokens: Tensor, size: Tensor, weight: Tensor, r: int) -> tuple[Tensor, Tensor]:
    unit = F.normalize(tokens.detach(), dim=-1)
    best, match = (unit[::2] @ unit[1::2].T).max(dim=-1)
    leaving = best.argsort(descending=True)[:r].tolist()
    total, mass = list((tokens * size[:, None]).unbind()), list(size.unbind())
    for even in leaving:
        source, destination = 2 * even, 2 * int(match[even]) + 1
        total[destination] = total[destination] + weight[source] * size[source] * tokens[source]
        mass[destination] = mass[destination] + weight[source] * size[source]
    order = [2 * even for even in range(len(best)) if even not in leaving] + list(range(1, len(tokens), 2))
    masses = torch.stack([mass[place] for place in order])
    return torch.stack([total[place] for place in order]) / masses[:, None], masses


def plain(model: VideoEncoder, video: Tensor, amounts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Tokens (B, N, D) and sizes (B, N) as the paper writes them."""
    tokens = model.encoder.patch_embed.proj(video.transpose(1, 2)).flatten(2).transpose(1, 2)
    tokens = tokens + model.position.flatten(0, 1)
    size = torch.ones(tokens.shape[:2])
    for block, r in zip(model.encoder.blocks, amounts, strict=True):
        tokens, size = plain_block(block, tokens, size, r)
    return model.encoder.norm(tokens), size


def output_and_gradients(run: nn.Module, model: VideoEncoder, video: Tensor) -> tuple[EncodedVideo, list[Tensor]]:
    """What `run` makes of a video, and the gradients of a weighted sum of its tokens."""
    model.zero_grad()
    video = video.clone().requires_grad_()
    encoded = run(video, return_origins=True)
    return encoded, gradients_of(encoded.tokens, model, video)


def gradients_of(tokens: Tensor, model: VideoEncoder, video: Tensor) -> list[Tensor]:
    weights = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(3))
    (tokens * weights).sum().backward()
    return [video.grad, *(parameter.grad for name, parameter in model.named_parameters() if "pool_norm" not in name)]


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for own, other in zip(found, expected, strict=True):
        scale = other.abs().max().clamp(min=1.0)
        torch.testing.assert_close(own / scale, other / scale, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("schedule", "amounts"), [(0, (0, 0, 0, 0)), (SCHEDULE, (12, 0, 9, 3))])
def test_output_and_gradients_equal_the_plain_form(schedule: tuple, amounts: tuple[int, ...]) -> None:
    model, video = encoder(schedule), clips()
    found, gradients = output_and_gradients(model, model, video)

    model.zero_grad()
    video = video.clone().requires_grad_()
    tokens, size = plain(model, video, amounts)
    assert_same([found.tokens, found.size], [tokens, size], 1e-5)
    assert_same(gradients, gradients_of(tokens, model, video), 1e-5)

    # Without gradient attention takes another path.
    with torch.no_grad():
        alone = model(video, return_origins=True)
    assert_same([alone.tokens, alone.size], [tokens, size], 1e-5)
    assert torch.equal(alone.origins, found.origins)


@torch.no_grad()
@pytest.mark.parametrize("reducer", ["prune", "importance"])
def test_the_least_attended_tokens_are_dropped_or_merged(reducer: str) -> None:
    model, video = encoder((10,), reducer=reducer, depth=1), clips()
    tokens = model.encoder.patch_embed(video).flatten(1, 2) + model.position.flatten(0, 1)
    block = model.encoder.blocks[0]
    projected = F.linear(block.norm1(tokens), block.attn.qkv.weight, block.attn._bias())
    query, key, _ = (part.unflatten(-1, (3, -1)).transpose(1, 2) for part in projected.chunk(3, -1))
    received = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)
    received = received.sum(dim=1) - received.diagonal(dim1=1, dim2=2)

    encoded = model(video, return_origins=True)
    assert encoded.tokens.shape[1] == 48 - 10
    assert encoded.size.sum(dim=1).tolist() == ([38.0] * 2 if reducer == "prune" else [48.0] * 2)
    for row, origins in zip(received, encoded.origins.flatten(1), strict=True):
        kept = row.argsort(descending=True)[:38].sort().values
        assert torch.equal(origins[kept], torch.arange(38))
        assert (origins == -1).sum() == (10 if reducer == "prune" else 0)


@torch.no_grad()
def test_r_of_0_is_no_reduction_to_the_bit() -> None:
    video = clips()
    assert torch.equal(encoder(0)(video).tokens, encoder(reducer="none", pooling="frames")(video).tokens)


@torch.no_grad()
def test_a_batch_equals_its_samples_one_by_one() -> None:
    model, video = encoder(), clips(5)
    together = model(video, return_origins=True)
    for index in range(5):
        alone = model(video[index : index + 1], return_origins=True)
        assert_same([together.tokens[index : index + 1], together.size[index : index + 1]], list(alone[:2]), 1e-5)
        assert torch.equal(together.origins[index], alone.origins[0])


def test_checkpointing_changes_nothing() -> None:
    plain, recomputing = encoder().train(), encoder(activation_checkpointing="recompute").train()
    expected, gradients = output_and_gradients(plain, plain, clips())
    found, own = output_and_gradients(recomputing, recomputing, clips())
    assert_same([found.tokens, found.size, *own], [expected.tokens, expected.size, *gradients], 1e-5)
    assert torch.equal(found.origins, expected.origins)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.soak)])
def test_compiled_equals_eager(backend: str) -> None:
    torch._dynamo.reset()
    model, video = encoder((12, 0.25), depth=2), clips()
    expected, gradients = output_and_gradients(model, model, video)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    found, own = output_and_gradients(compiled, model, video)
    assert_same([found.tokens, found.size, *own], [expected.tokens, expected.size, *gradients], 1e-5)

    # Without gradient attention takes another path.
    with torch.no_grad():
        alone = compiled(video)
    assert_same([alone.tokens, alone.size], [expected.tokens, expected.size], 1e-5)


@torch.no_grad()
def test_bf16_is_near_fp32() -> None:
    # One block: in the next, bf16 may choose otherwise between tokens that are nearly as alike.
    model, video = encoder((12,), depth=1), clips()
    expected = model(video)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = model(video)
    in_bf16 = model.to(torch.bfloat16)(video.to(torch.bfloat16))
    for found in (under_autocast, in_bf16):
        assert found.size.dtype == torch.float32
        apart = (found.tokens.float().mean(dim=1) - expected.tokens.mean(dim=1)).norm()
        assert apart < 0.1 * expected.tokens.mean(dim=1).norm()
        torch.testing.assert_close(found.size.sum(dim=1), expected.size.sum(dim=1), atol=0.3, rtol=0)


def gradients_of_half_a_batch() -> list[Tensor]:
    """One rank's averaged gradients."""
    model = encoder(activation_checkpointing="recompute", pool_norm=False).train()
    parallel = DistributedDataParallel(model)  # averages in backward, so it has to live that long
    rank = torch.distributed.get_rank()
    parallel(clips(4)[2 * rank : 2 * rank + 2]).tokens.square().mean().backward()
    return [parameter.grad for parameter in model.parameters()]


def test_two_ranks_equal_the_whole_batch() -> None:
    model = encoder(pool_norm=False).train()
    model(clips(4)).tokens.square().mean().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    for found in run_ranks(2, gradients_of_half_a_batch):
        assert_same(found, expected, 1e-5)


@torch.no_grad()
def test_origins_and_sizes_agree() -> None:
    """Where all sources have weight 1 a token's size is how many cells it holds."""
    encoded = encoder((14, 7, 0, 0), reducer="tome")(clips(), return_origins=True)
    counts = torch.stack([row.bincount(minlength=27) for row in encoded.origins.flatten(1)])
    assert torch.equal(counts.float(), encoded.size)

    encoded = encoder((14, 7))(clips(), return_origins=True)
    assert bool((encoded.origins == -1).any()), "background is dropped"
    assert bool((encoded.size > 0).all()) and bool((encoded.size.sum(dim=1) < 48).all())


@torch.no_grad()
def test_folding_for_inference_changes_nothing() -> None:
    model, video = encoder(), clips()
    expected = model(video)
    found = model.fold_for_inference()(video)
    assert_same([found.tokens, found.size], [expected.tokens, expected.size], 1e-5)


@torch.no_grad()
def test_other_frame_counts() -> None:
    """A single frame has the first frame's positions, and other lengths an interpolated table."""
    model = encoder(reducer="none")
    assert model(clips(frames=7)).tokens.shape == (2, 7 * 16, 24)
    cells = model.encoder.patch_embed(clips(frames=1)).flatten(1, 2)
    torch.testing.assert_close(model._embed(clips(frames=1), None, False).tokens, cells + model.position[0])
    # Halving 4 frames with intervals: each is the mean of two.
    four = encoder(reducer="none", frames=4)
    expected = four.position.unflatten(0, (2, 2)).mean(dim=1)
    torch.testing.assert_close(four._positions(2), expected)


@torch.no_grad()
def test_both_poolings() -> None:
    by_frame, together = encoder(reducer="none", pooling="frames"), encoder(reducer="none")
    tokens = by_frame(clips()).tokens
    frames = torch.stack([F.layer_norm(tokens[:, 16 * t : 16 * t + 16].mean(dim=1), (24,), eps=1e-6) for t in range(3)])
    torch.testing.assert_close(by_frame.pool(tokens, 3), frames.transpose(0, 1))
    torch.testing.assert_close(
        together.pool(tokens, 3), F.layer_norm(tokens.mean(dim=1, keepdim=True), (24,), eps=1e-6)
    )


@pytest.mark.parametrize("size", LISTS)
def test_token_counts_of_the_published_lists(size: str) -> None:
    sizes = {"base": {}, "large": {"depth": 24, "width": 1024, "heads": 16}}[size]
    for amounts, left in LISTS[size].items():
        aggregation = AggregationConfig(reducer="saliency", tokens_per_block=amounts)
        with torch.device("meta"):
            model = VideoEncoder(UMTConfig(pooling="all", **sizes), VideoConfig(num_frames=12), aggregation)
            encoded = model.eval()(torch.empty(1, 12, 3, 224, 224))
        assert encoded.tokens.shape[1] == left


def test_base_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        model = VideoEncoder(UMTConfig(), VideoConfig(num_frames=12))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 3) == 85.639
    assert len(model.state_dict()) == 162


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: encoder(pooling="frames"), "model.pooling: frames has no meaning"),
        (lambda: encoder((25,)), "aggregation.tokens_per_block: block 0 is to lose 25 of the 48 tokens"),
        (lambda: encoder((0.6,)), "aggregation.tokens_per_block: block 0 is to lose 28 of the 48 tokens"),
        (lambda: encoder((1, 1, 1, 1, 1)), "aggregation.tokens_per_block: 5 numbers for 4 blocks"),
        (lambda: encoder((1.5,)), "aggregation.tokens_per_block: 1.5 is neither"),
        (lambda: encoder((-1,)), "aggregation.tokens_per_block: .* is negative"),
        (lambda: encoder((0.5,), reducer="tome"), "shares are for saliency"),
        (lambda: encoder(1, reducer="geometry"), "aggregation.tokens_per_block: 1 has no effect"),
        (lambda: UMTConfig(heads=7), "model.heads: 7 does not divide"),
        (lambda: SplitTextConfig(fusion_layer=12), "model.text.fusion_layer: 12 leaves no layer"),
        (lambda: encoder()(torch.zeros(1, 3, 3, 20, 20)), "frames of 20 x 20 pixels"),
    ],
)
def test_what_cannot_be_is_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
