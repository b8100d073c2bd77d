"""Assignments against all permutations, and the loss of the pairs by hand."""

import itertools

import pytest
import torch

from models.stoa.alignment import assign, squared_distance
from models.stoa.fusion import ClipMemory
from models.stoa.model import TextFeatures
from models.stoa.objectives import Tags, alignment_loss


def best_by_permutations(scores: torch.Tensor) -> float:
    """The largest total of scores (R, C) over all ways to pair as many rows and columns as there can be pairs."""
    rows, columns = scores.shape
    if rows > columns:
        return best_by_permutations(scores.T)
    return max(
        float(sum(scores[row, column] for row, column in enumerate(chosen)))
        for chosen in itertools.permutations(range(columns), rows)
    )


@pytest.mark.parametrize("seed", range(5))
def test_assignments_have_the_largest_total(seed: int) -> None:
    torch.manual_seed(seed)
    rows, text = torch.randn(4, 4, 5), torch.randn(4, 6, 5)
    row_mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1]]).bool()
    column_mask = torch.tensor([[0, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]).bool()
    found = assign(rows, row_mask, text, column_mask)
    for clip in range(4):
        pairs = [(row, int(column)) for row, column in enumerate(found[clip]) if column >= 0]
        num_rows, num_columns = int(row_mask[clip].sum()), int(column_mask[clip].sum())
        assert len(pairs) == min(num_rows, num_columns)
        assert len({column for _, column in pairs}) == len(pairs)
        if not pairs:
            continue
        columns = column_mask[clip].nonzero().squeeze(1)
        scores = (rows[clip][row_mask[clip]] @ text[clip, columns].T).softmax(dim=-1)
        whole = torch.zeros(4, 6)
        whole[row_mask[clip].nonzero(), columns] = scores
        total = sum(float(whole[row, column]) for row, column in pairs)
        assert total == pytest.approx(best_by_permutations(scores), abs=1e-6)


def test_the_loss_is_the_mean_over_all_coordinates_of_all_pairs() -> None:
    rows, text = torch.randn(2, 3, 5, requires_grad=True), torch.randn(2, 4, 5)
    assignment = torch.tensor([[2, -1, 0], [-1, -1, 3]])
    loss = squared_distance(rows, text, assignment)
    pairs = [(0, 0, 2), (0, 2, 0), (1, 2, 3)]
    by_hand = torch.stack([(rows[clip, row] - text[clip, token]).square() for clip, row, token in pairs]).mean()
    torch.testing.assert_close(loss.mean, by_hand)
    nothing = squared_distance(rows, text, torch.full((2, 3), -1)).mean
    assert nothing == 0 and bool((torch.autograd.grad(nothing, rows)[0] == 0).all())


def test_a_clip_without_objects_keeps_its_actions_unless_in_reference_form() -> None:
    trajectory_mask = torch.tensor([[1, 1], [0, 0]]).bool()
    memory = ClipMemory(torch.randn(2, 3, 5), torch.randn(2, 2, 5), trajectory_mask, torch.randn(2, 2, 5))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()
    texts = TextFeatures(torch.randn(2, 4, 5), mask, torch.empty(0))
    verb = torch.tensor([[0, 1, 0, 0], [0, 1, 0, 1]]).bool()
    noun = torch.zeros_like(verb)
    repaired = alignment_loss(memory, texts, Tags(noun, verb))
    reference = alignment_loss(memory, texts, Tags(noun, verb), reference_form=True)
    assert repaired.objects is not None and repaired.actions is not None and reference.actions is not None
    # Without nouns the end of the text alone takes part; a tag on padding does not.
    assert sorted(repaired.objects.flatten().tolist()) == [-1, -1, -1, 3]
    assert [sorted(row) for row in repaired.actions.tolist()] == [[1, 3], [1, 2]]
    assert reference.actions[1].tolist() == [-1, -1]


def test_the_end_of_a_text_with_nouns_is_a_candidate_unless_it_is_left_out() -> None:
    """Two objects and a noun that is far from both: the end would take one of them, in a text without nouns it does."""
    states = torch.tensor([[0.0, 0.0], [-5.0, 0.0], [5.0, 0.0]]).expand(2, -1, -1)
    trajectories = torch.tensor([[1.0, 0.0], [0.9, 0.0]]).expand(2, -1, -1)
    memory = ClipMemory(torch.zeros(2, 1, 2), trajectories, torch.ones(2, 2).bool(), None)
    texts = TextFeatures(states, torch.ones(2, 3, dtype=torch.bool), torch.empty(0))
    noun = torch.tensor([[False, True, False], [False, False, False]])
    tags = Tags(noun, torch.zeros_like(noun))
    published = alignment_loss(memory, texts, tags).objects
    without = alignment_loss(memory, texts, tags, end_is_candidate=False).objects
    assert published is not None and without is not None
    assert sorted(published[0].tolist()) == [1, 2] and sorted(without[0].tolist()) == [-1, 1]
    assert sorted(published[1].tolist()) == sorted(without[1].tolist()) == [-1, 2]
