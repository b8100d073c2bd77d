"""Each rule by hand."""

import math

import numpy as np
import torch

from tasks.reranking_rules import by_logit, by_share_of_options


def test_only_chosen_candidates_have_their_logit() -> None:
    scores = by_logit(np.array([[3, 0], [1, 2]]), np.array([[0.5, -7.0], [2.0, 1.0]]), 4)
    assert scores.tolist() == [[-7.0, -100.0, -100.0, 0.5], [-100.0, 2.0, 1.0, -100.0]]


def test_options_share_similarity_and_match_alone() -> None:
    similarity = torch.tensor([[0.0, math.log(3.0)]])
    logits = torch.tensor([[[0.0, 0.0], [math.log(4.0), 0.0]]])
    expected = torch.tensor([[0.7 * 0.5 + 0.3 * 0.25, 0.7 * 0.2 + 0.3 * 0.75]])
    torch.testing.assert_close(by_share_of_options(similarity, logits), expected)
