"""TVTSv2's pre-training step: two processes give the gradients of one, and the reference's form half of them."""

from typing import Literal

import torch
from torch.testing import assert_close

from engine.distributed import all_gather_rows, all_gather_rows_with_grad, all_reduce_sum, rank, world_size
from models.parts.losses_sorting import SortingLosses, contrastive_loss, own_slice, sorting_loss
from tests.gloo import run_ranks
from tests.models.tvts.tiny import make_model, make_video

Gradients = dict[str, torch.Tensor]


def make_ids(batch: int, texts: int) -> torch.Tensor:
    ids = torch.randint(1, 48, (batch, texts, 7), generator=torch.Generator().manual_seed(3))
    ids[..., 5] = 49
    return ids


def gather_own(rows: torch.Tensor) -> torch.Tensor:
    return own_slice(rows, all_gather_rows(rows), rank() * len(rows))


def averaged_gradients(part: str, form: Literal["whole", "own"]) -> Gradients:
    """Gradients of one loss of four clips, shared out over the processes and averaged as DDP does."""
    model = make_model().eval()
    rows = slice(rank() * 4 // world_size(), (rank() + 1) * 4 // world_size())
    objective = SortingLosses(all_gather_rows_with_grad if form == "whole" else gather_own)
    losses = objective(model, make_video(batch=4, frames=2)[rows], make_ids(4, 4)[rows])
    losses[part].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {name: all_reduce_sum(gradient) / world_size() for name, gradient in gradients.items()}


def test_losses_are_those_of_the_parts() -> None:
    model, video, ids = make_model().eval(), make_video(batch=3, frames=2), make_ids(3, 4)
    found = model.sort(video, ids)
    losses = SortingLosses(temperature=0.1, sort_weight=3.0)(model, video, ids)
    assert_close(losses["contrastive"], contrastive_loss(found.video, found.text, 0.1))
    assert_close(losses["sorting"], 3 * sorting_loss(found.order_logits))
    assert SortingLosses()(model, video, ids[:, :1]).keys() == {"contrastive"}


def test_two_processes_give_the_gradients_of_one() -> None:
    for part in ("contrastive", "sorting"):
        alone = averaged_gradients(part, "whole")
        for together in run_ranks(2, averaged_gradients, part, "whole"):
            assert together.keys() == alone.keys()
            for name, gradient in alone.items():
                assert_close(together[name], gradient, atol=1e-5, rtol=1e-4)


def test_the_references_form_halves_the_contrastive_gradient_of_two_processes() -> None:
    alone = averaged_gradients("contrastive", "own")
    for name, gradient in averaged_gradients("contrastive", "whole").items():
        assert_close(alone[name], gradient)
    for together in run_ranks(2, averaged_gradients, "contrastive", "own"):
        for name, gradient in alone.items():
            assert_close(together[name], gradient / 2, atol=1e-5, rtol=1e-4)


def test_the_head_moves_in_batches_of_captions_only_if_asked() -> None:
    video, captions = make_video(batch=2, frames=2), make_ids(2, 1)
    for idle, moves in (("rests", False), ("moves", True)):
        model = make_model().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        objective = SortingLosses(idle_head=idle)
        sum(objective(model, video, make_ids(2, 4)).values()).backward()
        optimizer.step()
        before = model.pred_model.head.weight.detach().clone()
        optimizer.zero_grad()
        sum(objective(model, video, captions).values()).backward()
        optimizer.step()
        assert torch.equal(model.pred_model.head.weight, before) != moves
