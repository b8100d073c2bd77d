"""Every allowed pair of attention and reducer in its other ways to run: one by one, bf16, checkpointed, compiled."""

import pytest
import torch
from torch import Tensor, nn

from models.parts.features import EncodedVideo
from models.testa.video_encoder import VideoEncoder
from tests.models.tiny import PAIRS, clips, encoder

every_pair = pytest.mark.parametrize("pair", PAIRS)


def output_and_gradients(run: nn.Module, model: VideoEncoder, video: Tensor) -> tuple[EncodedVideo, list[Tensor]]:
    """What `run` makes of a video, and the gradients of a weighted sum of its tokens for it and all of `model`."""
    model.zero_grad()
    video = video.clone().requires_grad_()
    encoded = run(video, return_origins=True)
    weights = torch.randn(encoded.tokens.shape, generator=torch.Generator().manual_seed(3))
    (encoded.tokens * weights).sum().backward()
    return encoded, [video.grad, *(parameter.grad for parameter in model.parameters())]


def assert_same(
    found: tuple[EncodedVideo, list[Tensor]], expected: tuple[EncodedVideo, list[Tensor]], tolerance: float
) -> None:
    torch.testing.assert_close(found[0].tokens, expected[0].tokens, atol=tolerance, rtol=tolerance)
    assert torch.equal(found[0].origins, expected[0].origins)
    for own, other in zip(found[1], expected[1], strict=True):
        scale = other.abs().max().clamp(min=1.0)
        torch.testing.assert_close(own / scale, other / scale, atol=tolerance, rtol=tolerance)


@every_pair
@torch.no_grad()
def test_a_batch_equals_its_samples_one_by_one(pair: str) -> None:
    model, video = encoder(*PAIRS[pair], depth=3 if "none" in pair else 2), clips(5)
    together = model(video, return_origins=True)
    for index in range(5):
        alone: EncodedVideo = model(video[index : index + 1], return_origins=True)
        torch.testing.assert_close(together.tokens[index], alone.tokens[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(together.size[index], alone.size[0])
        assert torch.equal(together.origins[index], alone.origins[0])


@every_pair
@torch.no_grad()
def test_bf16_is_near_fp32(pair: str) -> None:
    # One block: in the next, bf16 may choose otherwise between tokens that are nearly as alike.
    model, video = encoder(*PAIRS[pair], depth=1), clips(2)
    expected = model(video)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = model(video)
    in_bf16 = model.to(torch.bfloat16)(video.to(torch.bfloat16))
    assert in_bf16.tokens.dtype == torch.bfloat16
    for found in (under_autocast, in_bf16):
        assert found.size.dtype == torch.float32
        assert found.tokens.shape == expected.tokens.shape
        apart = (found.tokens[:, 0].float() - expected.tokens[:, 0]).norm() / expected.tokens[:, 0].norm()
        assert apart < 0.05
        # Saliency drops a share of a token that is as exact as attention is.
        apart = (found.size.sum(dim=1) - expected.size.sum(dim=1)).abs().max()
        assert apart <= (1.0 if "saliency" in pair else 0.0)


@every_pair
@pytest.mark.parametrize("how", ["recompute", "offload"])
def test_checkpointing_changes_neither_output_nor_gradients(pair: str, how: str) -> None:
    plain, checkpointed = encoder(*PAIRS[pair]).train(), encoder(*PAIRS[pair], checkpointing=how).train()
    expected = output_and_gradients(plain, plain, clips(2))
    assert_same(output_and_gradients(checkpointed, checkpointed, clips(2)), expected, 1e-5)
    assert checkpointed.state_dict().keys() == plain.state_dict().keys()


def test_recomputing_runs_each_block_twice_and_only_in_training() -> None:
    model = encoder(*PAIRS["divided-geometry"], checkpointing="recompute")
    runs = []
    model.blocks[0].norm2.register_forward_hook(lambda *_: runs.append(1))
    model(clips(1)).tokens.sum().backward()
    assert len(runs) == 1
    model.train()(clips(1)).tokens.sum().backward()
    assert len(runs) == 3


@every_pair
def test_compiled_equals_eager(pair: str) -> None:
    torch._dynamo.reset()
    model = encoder(*PAIRS[pair])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = output_and_gradients(model, model, clips(2))
    assert_same(output_and_gradients(compiled, model, clips(2)), expected, 1e-4)


@pytest.mark.soak
def test_compiled_by_inductor_and_checkpointed_equals_eager() -> None:
    """Writing C++ takes a minute and is torch's to test; the graphs themselves are compared above."""
    torch._dynamo.reset()
    model = encoder(*PAIRS["divided-geometry"], depth=1, checkpointing="recompute").train()
    compiled = torch.compile(model, fullgraph=True)
    expected = output_and_gradients(model, model, clips(2))
    assert_same(output_and_gradients(compiled, model, clips(2)), expected, 1e-4)
