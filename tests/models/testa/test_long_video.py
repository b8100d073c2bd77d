"""Encoding in chunks equals encoding as a whole, forward and backward, and holds no more than it may."""

from dataclasses import replace

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor

from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.parts.chunks import BYTES_PER_NUMBER, GIB, WIDTHS_PER_TOKEN, Chunks, chunks_within
from models.testa.video_encoder import VideoEncoder
from tests.models.tiny import FRAMES, IMAGE, NUM_PATCHES, PAIRS, VIDEO, WIDTH, clips, encoder

DIVIDED = [name for name in PAIRS if name.startswith("divided")]


def memory_for(tokens: int, width: int = WIDTH) -> float:
    """The working memory, in GiB, of a step on this many tokens."""
    return tokens * WIDTHS_PER_TOKEN * BYTES_PER_NUMBER * width / GIB


RAGGED = memory_for(3 * NUM_PATCHES)
"""Three frames at a time, so that the last chunk of 8 frames is shorter; six places, so that one of 16 is, too."""


def whole_and_chunked(name: str, checkpointing: str = "none") -> tuple[VideoEncoder, VideoEncoder]:
    """Two encoders with the same weights, the second of which takes every clip in ragged chunks."""
    aggregation = PAIRS[name][1]
    chunked = encoder(aggregation=aggregation, video=replace(VIDEO, working_memory=RAGGED), checkpointing=checkpointing)
    return encoder(aggregation=aggregation, checkpointing=checkpointing), chunked


def test_chunks_are_as_large_as_memory_allows() -> None:
    assert chunks_within(memory_for(100), 10, 10, WIDTH) is None
    assert chunks_within(memory_for(99), 10, 10, WIDTH) == Chunks(frames=9, patches=9)
    assert chunks_within(memory_for(1), 10, 10, WIDTH) == Chunks(frames=1, patches=1)
    assert chunks_within(memory_for(3 * NUM_PATCHES), FRAMES, NUM_PATCHES, WIDTH) == Chunks(frames=3, patches=6)


@pytest.mark.parametrize("name", DIVIDED)
def test_chunks_equal_the_whole(name: str) -> None:
    whole, chunked = whole_and_chunked(name)
    video = clips(2)
    with torch.no_grad():
        expected, found = whole(video, return_origins=True), chunked(video, return_origins=True)
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.size, expected.size)
    assert expected.origins is not None and found.origins is not None
    assert torch.equal(found.origins, expected.origins)


@pytest.mark.parametrize("checkpointing", ["none", "recompute"])
@pytest.mark.parametrize("name", DIVIDED)
def test_gradients_equal_the_whole(name: str, checkpointing: str) -> None:
    results = []
    for model in whole_and_chunked(name, checkpointing):
        # Stochastic depth draws once for a sample, not once for a chunk.
        for block in model.blocks:
            block.drop_path = DropPath(0.4)
        model.train()
        torch.manual_seed(3)
        tokens = model(clips(3)).tokens
        (tokens.square() * torch.linspace(0, 1, WIDTH)).sum().backward()
        results.append((tokens.detach(), [parameter.grad for parameter in model.parameters()]))

    (expected, expected_gradients), (found, found_gradients) = results
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for ours, theirs in zip(found_gradients, expected_gradients, strict=True):
        assert ours is not None and theirs is not None
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()) + 1e-6)


def test_pixels_of_a_long_video_stay_small_until_their_chunk() -> None:
    whole, chunked = whole_and_chunked("divided-geometry")
    video = torch.randint(0, 256, (2, FRAMES, 3, IMAGE, IMAGE), dtype=torch.uint8)
    assert chunked.normalised(video).dtype == torch.uint8
    with torch.no_grad():
        expected, found = whole(whole.normalised(video)).tokens, chunked(chunked.normalised(video)).tokens
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_video_is_not_written_to() -> None:
    _, chunked = whole_and_chunked("divided-none")
    video = clips(1)
    before = video.clone()
    with torch.no_grad():
        first, second = chunked(video).tokens, chunked(video).tokens
    assert torch.equal(video, before) and torch.equal(first, second)


def test_steps_are_the_same() -> None:
    recorded: list[list[list]] = []
    for model in whole_and_chunked("divided-geometry"):
        recorded.append([])
        with torch.no_grad():
            model.trace_video(clips(1), recorded[-1])

    assert len(recorded[0]) == len(recorded[1]) == 2
    for ours, theirs in zip(recorded[1], recorded[0], strict=True):
        assert [step.axis for step in ours] == [step.axis for step in theirs] == ["time", "space"]
        for own, expected in zip(ours, theirs, strict=True):
            assert torch.equal(own.origins, expected.origins) and torch.equal(own.plan.keep, expected.plan.keep)


def test_a_folded_encoder_and_one_in_bfloat16() -> None:
    whole, chunked = whole_and_chunked("divided-geometry-mean-sorted-proportional")
    video = clips(2)
    with torch.no_grad():
        expected = whole(video).tokens
        torch.testing.assert_close(chunked.fold_for_inference()(video).tokens, expected, rtol=0, atol=1e-5)

    _, chunked = whole_and_chunked("divided-none")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected, found = encoder()(video).tokens, chunked(video).tokens
    assert torch.nn.functional.cosine_similarity(found.float(), expected.float(), dim=-1).min() > 0.99


@pytest.mark.parametrize("name", ["divided-none", "divided-geometry"])
def test_memory_does_not_grow_with_the_steps(name: str) -> None:
    """No tensor that a step makes is larger than the MLP's hidden layer of three frames."""
    seen: list[int] = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                seen.append(result.numel())
            return result

    _, chunked = whole_and_chunked(name)
    with torch.no_grad(), Recorder():
        chunked(clips(1))
    assert max(seen) <= 3 * NUM_PATCHES * 4 * WIDTH

    seen.clear()
    with torch.no_grad(), Recorder():
        encoder(aggregation=PAIRS[name][1])(clips(1))
    assert max(seen) > 1.5 * 3 * NUM_PATCHES * 4 * WIDTH, "the whole is not larger, so this test shows nothing"


def test_chunks_are_counted_on_the_meta_device() -> None:
    _, chunked = whole_and_chunked("divided-geometry")
    assert chunked.to("meta")(clips(1).to("meta")).tokens.shape[1] == 1 + (FRAMES - 4) * (NUM_PATCHES - 6)


def test_offloading_is_refused() -> None:
    video = replace(VIDEO, working_memory=RAGGED)
    model = encoder(video=video)
    model.blocks[0] = torch.nn.Sequential(model.blocks[0])  # as fairscale wraps a block
    with pytest.raises(ValueError, match=r"activation_checkpointing: offload .* set it to recompute"):
        model(clips(1))


def test_settings_without_effect_are_refused() -> None:
    with pytest.raises(ValueError, match=r"video.working_memory: 0 GiB must be above 0"):
        VideoConfig(working_memory=0)
    video = replace(VIDEO, working_memory=RAGGED)
    with pytest.raises(ValueError, match=r"video.working_memory: has no effect with joint attention"):
        TestaConfig(attention="joint", width=WIDTH, patch_size=4, heads=2).check(video, AggregationConfig())
