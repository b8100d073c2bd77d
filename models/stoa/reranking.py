"""Matching the candidates of both directions of retrieval: each pair once, without padding.

Shapes: T texts, V clips, K candidates of each, P distinct pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.stoa.fusion import ClipMemory, without_unused_trajectories
from models.stoa.model import StoaModel, TextFeatures
from models.stoa.objectives import candidate_probabilities


class BothDirections(NamedTuple):
    """The probability of a match of each text's candidates (T, K), and of each clip's (V, K)."""

    t2v: Tensor
    v2t: Tensor


@torch.no_grad()
def match_candidates(
    model: StoaModel,
    memory: ClipMemory,
    texts: TextFeatures,
    t2v_TK: Tensor,
    v2t_VK: Tensor,
    *,
    reference_form: bool = False,
    pairs_at_once: int = 64,
) -> BothDirections:
    """Match each text with its candidate clips `t2v_TK`, and each clip with its candidate texts `v2t_VK`.

    A pair that is in both lists is fused once. In reference form its probability depends on the other candidates of the
    query, so each query is matched by itself, in both directions.
    """
    if reference_form:
        own_texts, own_clips = (torch.arange(len(rows), device=rows.device)[:, None] for rows in (t2v_TK, v2t_VK))
        t2v = [
            candidate_probabilities(model, memory, texts, clips, own.expand_as(clips), reference_form=True)
            for own, clips in zip(own_texts, t2v_TK, strict=True)
        ]
        v2t = [
            candidate_probabilities(model, memory, texts, own.expand_as(about), about, reference_form=True)
            for own, about in zip(own_clips, v2t_VK, strict=True)
        ]
        return BothDirections(torch.stack(t2v), torch.stack(v2t))

    # A pair as one number, by which those of both lists are found to be the same.
    num_texts = len(t2v_TK)
    from_texts = t2v_TK * num_texts + torch.arange(num_texts, device=t2v_TK.device)[:, None]
    from_clips = torch.arange(len(v2t_VK), device=v2t_VK.device)[:, None] * num_texts + v2t_VK
    pairs, place = torch.cat([from_texts.flatten(), from_clips.flatten()]).unique(return_inverse=True)
    found = match_pairs(model, memory, texts, pairs // num_texts, pairs % num_texts, pairs_at_once)[place]
    of_texts, of_clips = found.split([t2v_TK.numel(), v2t_VK.numel()])
    return BothDirections(of_texts.view_as(t2v_TK), of_clips.view_as(v2t_VK))


@torch.no_grad()
def match_pairs(
    model: StoaModel, memory: ClipMemory, texts: TextFeatures, clips_P: Tensor, about_P: Tensor, pairs_at_once: int
) -> Tensor:
    """The probability (P,) that each pair matches, in batches of texts of one length: no text is padded."""
    lengths_P = texts.mask.sum(dim=1)[about_P]
    memory = without_unused_trajectories(memory)
    order = lengths_P.argsort()
    found = torch.empty(len(about_P), device=about_P.device)

    # One transfer tells all lengths.
    start = 0
    for length, count in zip(*(part.tolist() for part in lengths_P.unique(return_counts=True)), strict=True):
        cut = texts._replace(states=texts.states[:, :length], mask=texts.mask[:, :length])
        for rows in order[start : start + count].split(pairs_at_once):
            found[rows] = candidate_probabilities(model, memory, cut, clips_P[rows], about_P[rows]).float()
        start += count
    return found
