"""Gradients of every system's losses repeat themselves to the bit: nothing is added up in no fixed order."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.parts.losses_sorting import SortingLosses
from models.stoa.objectives import (
    Tags,
    alignment_loss,
    answer_loss,
    contrast,
    contrastive_loss,
    masked_language_loss,
    matching_loss,
    writing_loss,
)
from tests.gradients import UNORDERED, operations_of
from tests.models.stoa import tiny as tiny_stoa
from tests.models.tvts import tiny as tiny_tvts


def stoa_losses() -> dict[str, Tensor]:
    """All of STOA-VLP's losses on two clips with trajectories and actions."""
    model = tiny_stoa.tiny_model(objects="fusion", actions=True)
    video = model.encode_video(tiny_stoa.frames(2), tiny_stoa.objects([2, 3]))
    memory = video.memory
    ids, mask = tiny_stoa.texts([7, 5])
    encoded = model.encode_text(ids, mask)
    words = (torch.arange(7) > 0) & (torch.arange(7) < 4).expand(2, -1)
    other = torch.tensor([1, 0])
    return {
        "contrast": contrastive_loss(contrast(model, video, encoded)),
        "matching": matching_loss(model, memory, encoded, other, other)[0].total,
        "masked": masked_language_loss(model, memory, ids, mask, words)[0].total,
        "writing": writing_loss(model, memory, encoded.states, ids, mask, torch.ones(2, dtype=torch.int64)).total,
        "alignment": alignment_loss(memory, encoded, Tags(words, words)).loss.total,
        "answer": answer_loss(model, memory, encoded, ids[:, 1])[0].total,
    }


def tvts_losses(keep_BL: Tensor) -> dict[str, Tensor]:
    """TVTSv2's losses on clips of which only the patches `keep_BL` are seen."""
    ids = torch.randint(1, 48, (len(keep_BL), 4, 7), generator=torch.Generator().manual_seed(3))
    ids[..., 5] = 49
    video = tiny_tvts.make_video(batch=len(keep_BL), frames=2)
    return SortingLosses()(tiny_tvts.make_model().train(), video, ids, keep_BL)


LOSSES: dict[str, Callable[[], dict[str, Tensor]]] = {
    "stoa": stoa_losses,
    "tvts": lambda: tvts_losses(torch.tensor([[0, 3, 5, 9, 10, 11, 14, 15], [0, 1, 2, 3, 4, 5, 6, 7]])),
}


@pytest.mark.parametrize("system", LOSSES)
def test_no_gradient_is_added_up_in_no_fixed_order(system: str) -> None:
    for name, loss in LOSSES[system]().items():
        operations = operations_of(loss)
        assert operations & {"AddmmBackward0", "MmBackward0", "ViewBackward0"}, f"{name}: the walk reaches the layers"
        assert not operations & UNORDERED, name


def test_the_gradient_of_shared_positions_repeats_itself_on_two_threads() -> None:
    """Every clip takes the same patches, so that all of them share the rows of one table."""
    keep = torch.arange(0, 16, 2).expand(24, -1)
    tower = tiny_tvts.make_tower()
    video = tiny_tvts.make_video(batch=24, frames=2)

    def gradient() -> Tensor:
        found = tower(video, keep).embedding.square().sum()
        return torch.autograd.grad(found, tower.positional_embedding)[0]

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = gradient()
        for _ in range(10):
            assert torch.equal(gradient(), expected)
    finally:
        torch.set_num_threads(threads)
