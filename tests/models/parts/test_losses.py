"""The objectives against loops, and drawing of negatives against its probabilities."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.parts.losses import contrastive, draw_negatives, matching, selection_noise, similarities


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_contrastive_equals_loop(alpha: float) -> None:
    similarity, soft = torch.randn(4, 7) * 3, torch.randn(4, 7) * 3
    positives = torch.rand(4, 7) < 0.3
    positives[:, :4] |= torch.eye(4, dtype=torch.bool)
    found = contrastive(similarity, soft, positives, alpha)
    for row in range(4):
        total = sum(math.exp(value) for value in similarity[row].tolist())
        soft_total = sum(math.exp(value) for value in soft[row].tolist())
        expected = 0.0
        for column in range(7):
            target = (1 - alpha) * float(positives[row, column]) / int(positives[row].sum())
            target += alpha * math.exp(float(soft[row, column])) / soft_total
            expected -= target * math.log(math.exp(float(similarity[row, column])) / total)
        assert float(found[row]) == pytest.approx(expected, abs=1e-4)


def test_contrastive_without_soft_targets_is_cross_entropy() -> None:
    similarity = torch.randn(5, 5)
    found = contrastive(similarity, torch.randn(5, 5), torch.eye(5, dtype=torch.bool), alpha=0.0)
    expected = torch.nn.functional.cross_entropy(similarity, torch.arange(5), reduction="none")
    torch.testing.assert_close(found, expected)


def test_no_gradient_passes_through_soft_targets() -> None:
    similarity, soft = torch.randn(3, 3, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    contrastive(similarity, soft, torch.eye(3, dtype=torch.bool), alpha=0.5).sum().backward()
    assert soft.grad is None and similarity.grad.abs().sum() > 0


def test_contrastive_is_taken_in_float32() -> None:
    similarity, soft = torch.randn(4, 7).bfloat16(), torch.randn(4, 7).bfloat16()
    positives = torch.eye(4, 7, dtype=torch.bool)
    found = contrastive(similarity, soft, positives, 0.4)
    assert torch.equal(found, contrastive(similarity.float(), soft.float(), positives, 0.4))


@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_negatives_are_never_positives_and_follow_their_weights(floor: float) -> None:
    draws, columns = 20_000, 5
    similarity = torch.tensor([1.0, 3.0, -1.0, 0.5, 2.0])
    positives = torch.tensor([False, True, False, False, False])
    noise = torch.stack([selection_noise(0, step, 0, 100)[0, :, :columns] for step in range(draws // 100)]).flatten(
        0, 1
    )
    drawn, any_left = draw_negatives(similarity.expand(draws, -1), positives.expand(draws, -1), noise, floor)
    assert any_left.all() and not (drawn == 1).any()
    weight = (similarity.softmax(dim=0) + floor).masked_fill(positives, 0)
    frequency = torch.bincount(drawn, minlength=columns) / draws
    torch.testing.assert_close(frequency, weight / weight.sum(), atol=0.015, rtol=0)


def test_rows_without_negatives_are_flagged() -> None:
    positives = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])
    drawn, any_left = draw_negatives(torch.randn(3, 3), positives, torch.randn(3, 3), 0.0)
    assert any_left.tolist() == [False, True, True]
    assert drawn[1] == 1 and 0 <= int(drawn[0]) < 3


def test_unlikely_columns_can_still_be_drawn() -> None:
    """All weight on the positive: what is left underflows in float32 unless taken in logarithms."""
    similarity, positives = torch.tensor([[200.0, 1.0, 0.0]]), torch.tensor([[True, False, False]])
    drawn, any_left = draw_negatives(similarity, positives, torch.zeros(1, 3), 0.0)
    assert drawn.tolist() == [1] and any_left.all()


def test_noise_is_a_function_of_seed_step_and_part() -> None:
    noise = selection_noise(1, 2, 3, 8)
    torch.rand(5)  # the global generator has no part in it
    assert torch.equal(noise, selection_noise(1, 2, 3, 8))
    others = [selection_noise(*key, 8) for key in ((0, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2), (2, 2, 3))]
    assert not any(torch.equal(noise, other) for other in others)
    assert not torch.equal(noise[0], noise[1])
    assert noise.isfinite().all()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_draws_of_all_rows_do_not_depend_on_who_draws_them(processes: int) -> None:
    rows = 8
    similarity, positives = torch.randn(rows, rows), torch.eye(rows, dtype=torch.bool)
    together, _ = draw_negatives(similarity, positives, selection_noise(0, 0, 0, rows)[0], 1e-4)
    parts = []
    for own in torch.arange(rows).chunk(processes):
        noise = selection_noise(0, 0, 0, rows)[0, own]
        parts.append(draw_negatives(similarity[own], positives[own], noise, 1e-4)[0])
    assert torch.equal(torch.cat(parts), together)


def test_matching_sums_over_what_is_counted() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0], [3.0, 0.0]], requires_grad=True)
    loss = matching(logits, torch.tensor([1, 0, 1]), torch.tensor([True, True, False]))
    assert loss.item() == pytest.approx(2 * math.log(1 + math.exp(-2)), abs=1e-6)
    loss.backward()
    assert not logits.grad[2].any() and logits.grad[:2].abs().min() > 0


def test_similarities_are_taken_in_float32() -> None:
    """Unit vectors that differ by less than bfloat16 knows are told apart, with a gradient."""
    queries, keys = F.normalize(torch.randn(3, 64), dim=-1).requires_grad_(), F.normalize(torch.randn(5, 64), dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarities(queries, keys)
        assert (queries @ keys.T).dtype == torch.bfloat16
    expected = torch.einsum("be,ke->bk", queries, keys)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), queries)
    torch.testing.assert_close(gradient, keys.sum(dim=0).expand(3, -1))
