"""Plans and merging against loops over single tokens."""

import pytest
import torch
from torch import Tensor

from models.parts.aggregation import (
    MergePlan,
    best_match,
    cosine_similarity,
    merge,
    plan_bipartite,
    plan_by_importance,
    unmerge,
    vote,
)

LEADING = [(), (3,), (2, 3)]


def bipartite_by_hand(key: Tensor, r: int, first: int, order: str) -> tuple[list[list[int]], list[int]]:
    """Groups of positions that become one token, in output order, for key (N, K); and the positions that left."""
    set_a, set_b = list(range(first, len(key), 2)), list(range(1 - first, len(key), 2))
    unit = key.double() / key.double().norm(dim=-1, keepdim=True)
    best = {a: max(set_b, key=lambda b: (float(unit[a] @ unit[b]), -b)) for a in set_a}
    score = {a: float(unit[a] @ unit[best[a]]) for a in set_a}
    left = sorted(set_a, key=lambda a: (-score[a], a))[:r]
    stay = [a for a in set_a if a not in left] + set_b
    if order == "sorted":
        stay.sort()
    return [[kept, *(a for a in left if best[a] == kept)] for kept in stay], left


def merge_by_hand(tokens: Tensor, size: Tensor, groups: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Weighted means of tokens (N, *, D) and sums of size (N, *) over groups."""
    sizes = torch.stack([sum(size[i] for i in group) for group in groups])
    means = torch.stack([sum(tokens[i] * size[i].unsqueeze(-1) for i in group) for group in groups])
    return means / sizes.unsqueeze(-1), sizes


def bipartite(key: Tensor, r: int, first: int, order: str) -> MergePlan:
    positions = torch.arange(key.shape[-2])
    score, match = best_match(key[..., first::2, :], key[..., 1 - first :: 2, :])
    return plan_bipartite(score, match, r, positions[first::2], positions[1 - first :: 2], order)


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("order", ["reference", "sorted"])
@pytest.mark.parametrize(
    ("num_tokens", "r", "first"), [(9, 1, 0), (9, 4, 0), (9, 4, 1), (10, 5, 1), (2, 1, 1), (8, 0, 0)]
)
def test_bipartite_merge_equals_loop(leading: tuple[int, ...], order: str, num_tokens: int, r: int, first: int) -> None:
    key = torch.randn(*leading, num_tokens, 3)
    key[..., num_tokens // 2 :, :] = 1 + 0.1 * torch.randn(*leading, num_tokens - num_tokens // 2, 3)
    tokens, size = torch.randn(*leading, num_tokens, 5), torch.randint(1, 6, (*leading, num_tokens)).float()
    plan = bipartite(key, r, first, order)
    merged, merged_size = merge(tokens, size, plan)
    assert merged.shape == (*leading, num_tokens - r, 5)
    flat = (key.reshape(-1, num_tokens, 3), tokens.reshape(-1, num_tokens, 5), size.reshape(-1, num_tokens))
    for index, (one_key, one_tokens, one_size) in enumerate(zip(*flat, strict=True)):
        groups, _ = bipartite_by_hand(one_key, r, first, order)
        expected, expected_size = merge_by_hand(one_tokens, one_size, groups)
        torch.testing.assert_close(merged.reshape(-1, num_tokens - r, 5)[index], expected, atol=1e-6, rtol=1e-6)
        assert torch.equal(merged_size.reshape(-1, num_tokens - r)[index], expected_size)


@pytest.mark.parametrize("inner", [(), (3,)], ids=str)
@pytest.mark.parametrize("leading", LEADING, ids=str)
def test_the_gradient_is_that_of_weighted_means(leading: tuple[int, ...], inner: tuple[int, ...]) -> None:
    """Everything but the last of A leaves, so that several tokens merge into the same one."""
    key, tokens = torch.randn(*leading, 9, 3), torch.randn(*leading, 9, *inner, 5, requires_grad=True)
    size = torch.randint(1, 6, (*leading, 9, *inner)).float()
    merged, merged_size = merge(tokens, size, bipartite(key, 4, 0, "sorted"))
    direction = torch.randn_like(merged)
    (gradient,) = torch.autograd.grad(merged, tokens, direction)
    rows = [part.detach().reshape(-1, *part.shape[len(leading) :]) for part in (key, tokens, size, direction, gradient)]
    for one_key, one_tokens, one_size, one_direction, one_gradient in zip(*rows, strict=True):
        one_tokens.requires_grad_()
        means, _ = merge_by_hand(one_tokens, one_size, bipartite_by_hand(one_key, 4, 0, "sorted")[0])
        (expected,) = torch.autograd.grad(means, one_tokens, one_direction)
        torch.testing.assert_close(one_gradient, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("order", ["reference", "sorted"])
def test_several_sources_in_one_destination(order: str) -> None:
    key = torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, 0.2], [-1.0, 0.0], [1.0, -0.1], [-1.0, 0.1]])
    tokens, size = torch.randn(6, 4), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    merged, merged_size = merge(tokens, size, bipartite(key, 3, 0, order))
    assert merged_size.tolist() == [11, 4, 6]
    torch.testing.assert_close(merged[0], (tokens[0] + 2 * tokens[1] + 3 * tokens[2] + 5 * tokens[4]) / 11)
    assert torch.equal(merged[1:], tokens[[3, 5]])


def test_merging_frames_moves_all_their_patches_together() -> None:
    tokens, size = torch.randn(2, 6, 5, 4), torch.randint(1, 4, (2, 6, 5)).float()
    key = torch.randn(2, 6, 3)
    merged, merged_size = merge(tokens, size, bipartite(key, 2, 0, "reference"))
    for clip in range(2):
        groups, _ = bipartite_by_hand(key[clip], 2, 0, "reference")
        expected, expected_size = merge_by_hand(tokens[clip], size[clip], groups)
        torch.testing.assert_close(merged[clip], expected)
        assert torch.equal(merged_size[clip], expected_size)


def test_merging_conserves_size_and_mass_and_leaves_the_rest_equal_to_the_bit() -> None:
    tokens, size = torch.randn(2, 3, 12, 8), torch.randint(1, 9, (2, 3, 12)).float()
    key = torch.randn(2, 3, 12, 4)
    for plan in (
        bipartite(key, 4, 1, "reference"),
        bipartite(key, 6, 1, "sorted"),
        plan_by_importance(torch.rand(2, 3, 12), 5, key),
    ):
        merged, merged_size = merge(tokens, size, plan)
        assert torch.equal(merged_size.sum(dim=-1), size.sum(dim=-1))
        torch.testing.assert_close((merged * merged_size[..., None]).sum(dim=2), (tokens * size[..., None]).sum(dim=2))
        touched = torch.zeros_like(plan.keep).scatter(-1, plan.destination, 1).bool()
        kept = tokens.gather(2, plan.keep[..., None].expand(-1, -1, -1, 8))
        assert torch.equal(merged[~touched], kept[~touched])
        assert not (merged == kept).all(dim=-1)[touched].any()


@pytest.mark.parametrize("merging", [True, False])
def test_importance_equals_loop(merging: bool) -> None:
    importance, key = torch.randn(4, 9), torch.randn(4, 9, 3)
    tokens, size = torch.randn(4, 9, 5), torch.randint(1, 6, (4, 9)).float()
    result, result_size = merge(tokens, size, plan_by_importance(importance, 3, key if merging else None))
    for row in range(4):
        least = sorted(range(9), key=lambda i: float(importance[row, i]))[:3]
        stay = [i for i in range(9) if i not in least]
        similarity = torch.nn.functional.cosine_similarity(key[row, :, None], key[row, None], dim=-1)
        into = {i: max(stay, key=lambda s: float(similarity[i, s])) for i in least}
        groups = [[kept, *(i for i in least if merging and into[i] == kept)] for kept in stay]
        expected, expected_size = merge_by_hand(tokens[row], size[row], groups)
        torch.testing.assert_close(result[row], expected)
        assert torch.equal(result_size[row], expected_size)
    if not merging:
        assert result_size.sum() < size.sum()


def test_vote_equals_torch_mode_where_scores_differ() -> None:
    score, match = torch.randn(3, 17, 6), torch.randint(0, 5, (3, 17, 6))
    found, frame = vote(score, match, num_candidates=5)
    assert torch.equal(found, score.mode(dim=1).values)
    assert torch.equal(found, score.min(dim=1).values)
    assert torch.equal(frame, match.mode(dim=1).values)


def test_vote_on_repeated_values() -> None:
    # Patches down, frames across: most frequent 0.5; two equally frequent, 0.25 is less; all different; all equal.
    score = torch.tensor([[0.5, 0.75, 0.9, 0.5], [0.1, 0.25, 0.2, 0.5], [0.5, 0.75, 0.7, 0.5], [0.9, 0.25, 0.4, 0.5]])
    match = torch.tensor([[2, 1, 3, 0], [2, 0, 2, 0], [0, 1, 1, 0], [1, 0, 0, 0]])
    found, frame = vote(score[None], match[None], num_candidates=4)
    assert found[0].tolist() == pytest.approx([0.5, 0.25, 0.2, 0.5])
    assert frame[0].tolist() == [2, 0, 0, 0]


def test_ties_go_to_the_smallest_index() -> None:
    equal = torch.ones(1, 8, 4)
    plan = bipartite(equal, 2, 0, "reference")
    assert (plan.source.tolist(), plan.keep.tolist()) == ([[0, 2]], [[4, 6, 1, 3, 5, 7]])
    assert plan.destination.tolist() == [[2, 2]]  # both into position 1, the first of set B
    many = bipartite(torch.ones(1, 2000, 4), 300, 1, "sorted")  # so many that an unstable sort would mix them
    assert many.source.tolist() == [list(range(1, 600, 2))]
    plan = plan_by_importance(torch.zeros(1, 5), 2, torch.ones(1, 5, 4))
    assert (plan.keep.tolist(), plan.source.tolist(), plan.destination.tolist()) == ([[0, 1, 2]], [[3, 4]], [[0, 0]])


def test_equal_keys_have_equal_cosines_wherever_they_stand() -> None:
    # A float32 matrix product may differ in the last bit by position; then ties would be settled at random.
    key = torch.randn(1, 48).repeat(301, 1)
    other = torch.randn(2, 48)
    key[1::2] = other[0]
    similarity = cosine_similarity(key[::2], key[1::2])
    assert (similarity == similarity[0, 0]).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosine_similarity(key[::2], key[1::2]), similarity)


def test_cosine_of_zero_keys_is_zero() -> None:
    key = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert cosine_similarity(key, key).tolist() == [[0, 0], [0, 1]]


def test_unmerge_gives_each_cell_its_token() -> None:
    tokens = torch.randn(2, 7, 3)
    origins = torch.tensor([[[0, 6, -1], [3, 3, 1]], [[5, -1, -1], [2, 0, 4]]])
    spread = unmerge(tokens, origins)
    for clip in range(2):
        for frame in range(2):
            for patch in range(3):
                held = int(origins[clip, frame, patch])
                expected = torch.zeros(3) if held < 0 else tokens[clip, held]
                assert torch.equal(spread[clip, frame, patch], expected)


@pytest.mark.parametrize("frames", [False, True])
def test_gradient_of_merge(frames: bool) -> None:
    inner = (3,) if frames else ()
    tokens = torch.randn(2, 6, *inner, 2, dtype=torch.float64, requires_grad=True)
    size = torch.randint(1, 5, (2, 6, *inner)).double()
    plan = bipartite(torch.randn(2, 6, 3), 3, 0, "reference")
    assert torch.autograd.gradcheck(lambda tokens: merge(tokens, size, plan)[0], tokens)
    assert torch.autograd.gradcheck(lambda tokens: merge(tokens, size, plan._replace(destination=None))[0], tokens)
