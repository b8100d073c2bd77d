"""Every allowed pair of attention and reducer under DDP: two processes with half a batch each equal one with it all."""

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tests.gloo import run_ranks
from tests.models.tiny import PAIRS, clips, encoder

BATCH, WORLD_SIZE = 4, 2
CHECKPOINTING = ("none", "recompute")
CASES = [(pair, checkpointing) for pair in PAIRS for checkpointing in CHECKPOINTING]


def gradients_of_half_a_batch() -> dict[tuple[str, str], list[Tensor]]:
    """One rank's averaged gradients in each case."""
    rank, rows = torch.distributed.get_rank(), BATCH // WORLD_SIZE
    found = {}
    for pair, checkpointing in CASES:
        model = encoder(*PAIRS[pair], checkpointing=checkpointing).train()
        parallel = DistributedDataParallel(model)  # averages in backward, so it has to live that long
        parallel(clips(BATCH)[rank * rows : (rank + 1) * rows]).tokens.square().mean().backward()
        found[pair, checkpointing] = [parameter.grad for parameter in model.parameters()]
    return found


@pytest.fixture(scope="module")
def by_rank() -> list[dict[tuple[str, str], list[Tensor]]]:
    return run_ranks(WORLD_SIZE, gradients_of_half_a_batch)


@pytest.mark.parametrize(("pair", "checkpointing"), CASES)
def test_two_halves_equal_the_whole(
    pair: str, checkpointing: str, by_rank: list[dict[tuple[str, str], list[Tensor]]]
) -> None:
    model = encoder(*PAIRS[pair]).train()
    model(clips(BATCH)).tokens.square().mean().backward()
    assert any(parameter.grad.abs().max() > 1e-3 for parameter in model.parameters())
    for found in by_rank:
        for own, parameter in zip(found[pair, checkpointing], model.parameters(), strict=True):
            torch.testing.assert_close(own, parameter.grad, atol=1e-5, rtol=1e-5)
