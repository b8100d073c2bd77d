"""What the benchmark compares is the same work: both ways give equal numbers."""

import pytest
import torch

from benchmarks.stoa import naive as naive_way, work
from models.stoa.model import StoaModel
from models.stoa.reranking import match_candidates
from models.stoa.sizes import StoaSizes
from tests.models.stoa.tiny import SIZES, randomise


@pytest.fixture
def model() -> StoaModel:
    model = work.make_model(StoaSizes(**{**SIZES, "dropout": 0.0}))  # type: ignore[arg-type]
    randomise(model)
    return model


def test_the_losses_of_a_step_and_their_gradients_are_equal(model: StoaModel) -> None:
    batch = work.make_batch(model.sizes, 3)
    found = []
    for naive in (False, True):
        model.zero_grad()
        losses = work.step_losses(model, batch, naive)
        torch.stack(losses).sum().backward()
        found.append((losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (losses, gradients), (naive_losses, naive_gradients) = found
    torch.testing.assert_close(losses, naive_losses, atol=1e-4, rtol=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, naive_gradients[name], atol=1e-4, rtol=1e-3, msg=name)


@torch.no_grad()
def test_captions_and_reranked_pairs_are_equal(model: StoaModel) -> None:
    memory = work.make_memory(model.sizes, 4)
    assert torch.equal(work.captions_of(model, memory, naive=False), work.captions_of(model, memory, naive=True))
    texts, t2v, v2t = work.make_candidates(model, 4, 3)
    ours, naive = (way(model, memory, texts, t2v, v2t) for way in (match_candidates, naive_way.match_candidates))
    torch.testing.assert_close(tuple(ours), naive, atol=1e-5, rtol=1e-4)
