"""What pictures are drawn from, against loops over pairs and over cells."""

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from inference.pictures.trace import Similarity, grounded, similarity, trace_video
from models.parts.pixels import normalise_pixels
from tests.models.tiny import FRAMES, IMAGE, NUM_PATCHES, PAIRS, clips, encoder

MERGING = [name for name in PAIRS if "none" not in name]


def frames(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (FRAMES, 3, IMAGE, IMAGE), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("pair", MERGING)
def test_similarity_equals_loop_over_all_pairs(pair: str) -> None:
    steps: list = []
    encoder(*PAIRS[pair])(clips(1), return_origins=True, steps=steps)
    for block, of_block in enumerate(steps):
        for step in of_block:
            key = step.compared.mean(dim=1) if step.axis == "time" else step.compared
            merged, others = [], []
            for row in product(*map(range, key.shape[:-2])):
                plan = [None if part is None else part[row].tolist() for part in step.plan]
                gone = plan[2] is not None
                targets = dict(zip(plan[1], [plan[0][place] for place in plan[2]] if gone else [], strict=gone))
                for one, other in combinations(range(key.shape[-2]), 2):
                    cosine = F.cosine_similarity(key[row][one].double(), key[row][other].double(), dim=0).item()
                    is_merged = targets.get(one) == other or targets.get(other) == one
                    (merged if is_merged else others).append(cosine)
            found = similarity(block, step)
            assert (found.block, found.axis) == (block, step.axis)
            assert found.others == pytest.approx(np.mean(others), abs=1e-9)
            assert (found.merged is None) == ("prune" in pair)
            assert found.merged is None or found.merged == pytest.approx(np.mean(merged), abs=1e-6)


@pytest.mark.parametrize("pair", MERGING)
def test_trace_equals_what_the_encoder_returns(pair: str) -> None:
    model = encoder(*PAIRS[pair])
    trace = trace_video(model, frames())
    shown = normalise_pixels(frames()[None], model.pixel_mean, model.pixel_std, torch.float32)
    with torch.no_grad():
        encoded = model(shown, return_origins=True)
    assert torch.equal(trace.tokens, encoded.tokens[0])
    assert np.array_equal(trace.origins, encoded.origins[0].numpy())
    last = trace.blocks[-1]
    assert np.array_equal(np.where(last < 0, -1, last + 1), trace.origins)
    left = [len(np.unique(held[held >= 0])) for held in trace.blocks]
    assert left == sorted(left, reverse=True) and FRAMES * NUM_PATCHES > left[0] > left[1]
    assert trace.grid == (4, 4) and np.array_equal(trace.frames, frames().permute(0, 2, 3, 1))
    assert trace.merges_frames == (PAIRS[pair][0] == "divided")
    axes = 2 if trace.merges_frames and "saliency" not in pair else 1
    assert len(trace.similarities) == 2 * axes
    assert isinstance(trace.similarities[0], Similarity) and trace.similarities[0].block == 1


@pytest.mark.parametrize("pair", ["divided-geometry", "divided-prune"])
def test_grounding_gives_each_cell_the_cosine_of_its_token(pair: str) -> None:
    trace = trace_video(encoder(*PAIRS[pair]), frames())
    torch.manual_seed(0)
    projection, text = nn.Linear(trace.tokens.shape[1], 6), F.normalize(torch.randn(6), dim=0)
    model: Any = nn.Module()
    model.projection = projection
    model.project_tokens = lambda tokens: F.normalize(projection(tokens), dim=-1)
    found = grounded(model, trace, text)
    for frame, patch in product(range(FRAMES), range(NUM_PATCHES)):
        token = trace.origins[frame, patch]
        if token < 0:
            assert np.isnan(found[frame, patch])
        else:
            cosine = F.cosine_similarity(projection(trace.tokens[token]), text, dim=0).item()
            assert found[frame, patch] == pytest.approx(cosine, abs=1e-6)
    assert np.isnan(found).any() == ("prune" in pair)


def test_a_model_that_merges_nothing_is_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"nothing merges.*aggregation\.reducer=geometry"):
        trace_video(encoder(*PAIRS["space-none"]), frames())
