"""Each rule by hand."""

import math

import numpy as np
import pytest
import torch

from tasks.reranking_rules import RULES, by_logit, by_share_of_options, rule_named


def test_only_chosen_candidates_have_their_logit() -> None:
    scores = by_logit(np.array([[3, 0], [1, 2]]), np.array([[0.5, -7.0], [2.0, 1.0]]), 4)
    assert scores.tolist() == [[-7.0, -100.0, -100.0, 0.5], [-100.0, 2.0, 1.0, -100.0]]


def test_options_share_similarity_and_match_alone() -> None:
    similarity = torch.tensor([[0.0, math.log(3.0)]])
    logits = torch.tensor([[[0.0, 0.0], [math.log(4.0), 0.0]]])
    expected = torch.tensor([[0.7 * 0.5 + 0.3 * 0.25, 0.7 * 0.2 + 0.3 * 0.75]])
    torch.testing.assert_close(by_share_of_options(similarity, logits), expected)


def test_each_name_scores_by_what_it_says() -> None:
    """One query, four candidates, the first and the third chosen; by hand."""
    cosine = np.array([[0.5, 0.9, 0.1, -0.2]], np.float32)
    chosen = np.array([[0, 2]])
    logits = torch.tensor([[0.0, 1.0], [1.0, 3.0]])

    def scores_of(name: str) -> list[float]:
        rule = RULES[name]
        return rule.scores(cosine, chosen, rule.value(logits).numpy()[None], 2.0)[0].tolist()

    # The others follow by cosine, all below the worst of the chosen.
    assert scores_of("logit_plus_cosine") == pytest.approx([1.5, 0.9 + 1.5 - 3, 3.1, -0.2 + 1.5 - 3])
    assert scores_of("logit") == pytest.approx([1.0, -100.0, 3.0, -100.0])

    weights = np.exp([2 * 0.5, 2 * 0.1])
    matching = 1 / (1 + np.exp([-1.0, -2.0]))
    rescored = 1000 * weights / weights.sum() * matching
    assert scores_of("scaled_probability") == pytest.approx(
        [rescored[0], 0.9 + rescored.min() - 3, rescored[1], -0.2 + rescored.min() - 3], rel=1e-5
    )


def test_an_unknown_rule_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"evaluation.rerank_rule: found best, expected one of .*logit.*"):
        rule_named("best")
