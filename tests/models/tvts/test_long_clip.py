"""Encoding clips in chunks equals encoding them as a whole, forward and backward."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.parts.chunks import BYTES_PER_NUMBER, GIB, WIDTHS_PER_TOKEN
from models.parts.short_attention import MOST_KEYS
from models.tvts.blocks import EncodedClip
from models.tvts.video_tower import VideoTower
from tests.models.tvts.tiny import IMAGE, make_tower, make_video

AGGREGATIONS: dict[str, dict] = {
    "none": {},
    "geometry": {"reducer": "geometry", "frames_per_block": 1, "patches_per_block": 3, "proportional_attention": True},
    "importance": {"reducer": "importance", "frames_per_block": 1, "patches_per_block": 3},
    "prune": {"reducer": "prune", "frames_per_block": 1, "patches_per_block": 3},
    "saliency": {"reducer": "saliency", "patches_per_block": 3},
}
MEMORY = 5 * 16 * WIDTHS_PER_TOKEN * BYTES_PER_NUMBER * IMAGE.width / GIB
"""GiB that hold five frames of sixteen patches: of six frames, the last chunk has one."""


def tower(name: str, in_chunks: bool, raw_patches: bool = False) -> VideoTower:
    model = make_tower(raw_patches, **AGGREGATIONS[name])
    if in_chunks:
        model.working_memory = MEMORY
    return model


def encode(model: VideoTower, keep: Tensor | None = None) -> EncodedClip:
    return model(make_video(), keep, return_origins=True)


@torch.no_grad()
@pytest.mark.parametrize("name", AGGREGATIONS)
def test_chunks_equal_the_whole(name: str) -> None:
    assert tower(name, in_chunks=True)._chunks(make_video(), None) == (5, 13)
    expected, found = encode(tower(name, in_chunks=False)), encode(tower(name, in_chunks=True))
    assert_close(found.embedding, expected.embedding, atol=1e-5, rtol=0)
    assert_close(found.tokens, expected.tokens, atol=1e-5, rtol=0)
    assert_close(found.size, expected.size)
    assert torch.equal(found.origins, expected.origins)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", AGGREGATIONS)
def test_gradients_equal_the_whole(name: str, recompute: bool) -> None:
    gradients = []
    for in_chunks in (False, True):
        model = tower(name, in_chunks).train()
        model.recompute = recompute
        encoded = encode(model)
        (encoded.embedding.sum() + encoded.tokens.square().sum()).backward()
        gradients.append({key: parameter.grad for key, parameter in model.named_parameters()})

    for key, expected in gradients[0].items():
        assert_close(gradients[1][key], expected, atol=1e-5 * float(expected.abs().max()) + 1e-6, rtol=0, msg=key)


@torch.no_grad()
def test_masked_clips_packed_weights_and_uint8() -> None:
    whole, chunked = tower("none", False, raw_patches=True), tower("none", True, raw_patches=True)
    whole.working_memory, chunked.working_memory = 1.0, MEMORY / 3
    keep = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(row))[:7] for row in range(2)])
    assert chunked._chunks(make_video(), keep) is not None
    assert_close(encode(chunked, keep).tokens, encode(whole, keep).tokens, atol=1e-5, rtol=0)

    pixels = torch.randint(0, 256, (1, 6, 3, 16, 16), dtype=torch.uint8)
    expected = whole(pixels).tokens
    assert_close(chunked.fold_for_inference()(pixels).tokens, expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["none", "geometry"])
def test_attention_over_many_frames_takes_tiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, video = tower(name, in_chunks=False), make_video(1, MOST_KEYS + 1)
    found = model(video).tokens
    monkeypatch.setattr("models.tvts.attention.suits_tiles", lambda _: False)
    expected = model(video).tokens
    assert not torch.equal(found, expected), "both took the same way"
    assert_close(found, expected, atol=1e-4, rtol=0)
