"""Which tokens merge or are dropped: plans made from keys, attention or the tokens themselves.

Pure functions first, one thin module (`TokenAggregator`) last; `models.parts.merging` carries plans out. TESTA (EMNLP
2023), section 3.2, after ToMe (ICLR 2023); vid-TLDR (CVPR 2024), section 3.
Shapes: B batch, T frames, L patches, D width, K head width; N tokens along the axis that is reduced, r of which leave.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.reducers import ReducerName
from configs.schedule import num_leaving
from models.parts.attention import Attended, Needs
from models.parts.merging import (
    MergePlan as MergePlan,
    follow as follow,
    merge as merge,
    output_slots,
    take,
    unmerge as unmerge,
)
from models.parts.sharpness import saliency

Order = Literal["reference", "sorted"]
REDUCERS: dict[str, Needs] = {
    "none": "nothing",
    "geometry": "key",
    "importance": "probabilities",
    "prune": "probabilities",
    "tome": "key",
    "saliency": "sharpness",
    "run_length": "nothing",  # which works on pixels, before the first block: see models/parts/run_length.py
    "quadtree": "nothing",  # before the first block: see models/parts/squares.py
    "tempme": "key",  # in groups of frames: see models/parts/frame_merging.py
}
"""What each reducer needs of attention. Which of them an encoder can do, the `model` section of its system says."""
BACKGROUND = 0.1
"""What a token of no saliency counts for in a mean weighted by saliency, where the sharpest counts for 1."""
SIMILARITIES_AT_ONCE = 2**22
"""Similarities of one sample that exist at a time while matches are sought: 32 MB in float64."""


class AggregationStep(NamedTuple):
    """What one axis of one block did, for inspection.

    Attributes:
        axis: `time`, `space` or `joint`.
        compared: the keys or tokens that were compared, as `TokenAggregator.plan` takes them: (B, L, T, K) for time,
            (B, T, L, K) for space and (B, N, K) for joint.
        plan: what followed from it.
        origins: (B, T, L) after this step, for every original cell the flat index of the token that holds it, not
            counting the class token; -1: dropped.
    """

    axis: Literal["time", "space", "joint"]
    compared: Tensor
    plan: MergePlan
    origins: Tensor


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each row of a (..., N, K) with each of b (..., M, K), float32 (..., N, M), whatever autocast says.

    Taken in float64 and rounded once, so that equal keys have equal cosines in every batch and on every kernel; matrix
    products in float32 differ in the last bit by position, which would decide ties at random. Autocast leaves float64.
    """
    unit_a, unit_b = F.normalize(a.double(), dim=-1), F.normalize(b.double(), dim=-1)
    return (unit_a @ unit_b.transpose(-1, -2)).float()


def best_match(key_a: Tensor, key_b: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of key_a (..., N, K) its highest cosine with a row of key_b, and which row; of ties the first."""
    # A long video has many groups of many tokens: compare a few groups at a time.
    per_group = key_a.shape[-2] * key_b.shape[-2]
    if key_a.ndim > 3 and per_group * math.prod(key_a.shape[1:-2]) > SIMILARITIES_AT_ONCE:
        groups_at_once = max(1, SIMILARITIES_AT_ONCE // per_group)
        groups = zip(
            key_a.flatten(0, -3).split(groups_at_once),
            key_b.flatten(0, -3).split(groups_at_once),
            strict=True,
        )
        scores, matches = zip(*(best_match(a, b) for a, b in groups), strict=True)
        leading = key_a.shape[:-2]
        return torch.cat(scores).unflatten(0, leading), torch.cat(matches).unflatten(0, leading)

    # Compare a few rows at a time, since the whole matrix of a long video would be large.
    parts = []
    for rows in key_a.split(max(1, SIMILARITIES_AT_ONCE // key_b.shape[-2]), dim=-2):
        similarity = cosine_similarity(rows, key_b)
        match = similarity.argmax(dim=-1, keepdim=True)
        parts.append((similarity.gather(-1, match).squeeze(-1), match.squeeze(-1)))

    if len(parts) == 1:
        return parts[0]
    scores, matches = zip(*parts, strict=True)
    return torch.cat(scores, dim=-1), torch.cat(matches, dim=-1)


def vote(score_BLN: Tensor, match_BLN: Tensor, num_candidates: int) -> tuple[Tensor, Tensor]:
    """Let the patches of each frame vote on its match and its score; returns score and match, both (B, N).

    The most frequent value wins; ties go to the smallest, so if all scores differ, the worst patch decides. This is the
    rule of the released TESTA; the paper uses the mean key (`frame_match: mean`).
    """
    score_BNL, match_BNL = score_BLN.transpose(1, 2), match_BLN.transpose(1, 2)

    # Matches are small integers: count the votes for each candidate.
    votes = match_BNL.new_zeros(*match_BNL.shape[:2], num_candidates)
    votes = votes.scatter_add(-1, match_BNL, torch.ones_like(match_BNL))
    best_match = votes.argmax(dim=-1)

    # Scores are floats: in sorted order, equal scores form runs. `run_length` counts up along each run, so its
    # first maximum ends the longest run, whose score is the mode.
    ascending = score_BNL.sort(dim=-1).values
    index = torch.arange(ascending.shape[-1], device=ascending.device)
    is_first = F.pad(ascending.diff(dim=-1) != 0, (1, 0), value=True)
    run_start = torch.where(is_first, index, 0).cummax(dim=-1).values
    run_length = index - run_start
    longest_run_end = run_length.argmax(dim=-1, keepdim=True)
    best_score = ascending.gather(-1, longest_run_end).squeeze(-1)

    return best_score, best_match


def plan_bipartite(score: Tensor, match: Tensor, r: int, in_a: Tensor, in_b: Tensor, order: Order) -> MergePlan:
    """Merge the r best matched tokens of set A into their matches in set B.

    Args:
        score: (..., len(in_a)) how well each token of A is matched; equal scores leave in order of index.
        match: (..., len(in_a)) its match, an index into `in_b`.
        r: how many leave, at most len(in_a).
        in_a, in_b: positions of the two sets, ascending.
        order: `reference` puts the rest of A before B; `sorted` keeps all tokens in their order.
    """
    # The best matched tokens of A leave. The sort is stable: equal scores leave in order of index.
    ranking = score.argsort(dim=-1, descending=True, stable=True)
    leaving, staying = ranking[..., :r], ranking[..., r:]

    keep = torch.cat([in_a[staying.sort(dim=-1).values], in_b.expand(*match.shape[:-1], -1)], dim=-1)
    if order == "sorted":
        keep = keep.sort(dim=-1).values

    # Each destination moves to its place in the output.
    position = in_b[match.gather(-1, leaving)]
    slots = output_slots(keep, len(in_a) + len(in_b))
    return MergePlan(keep, in_a[leaving], slots.gather(-1, position))


def plan_by_importance(importance: Tensor, r: int, key: Tensor | None) -> MergePlan:
    """Remove the r least important tokens (..., N): merge them into the most similar others, or drop them without key.

    Equation 1 of TESTA. The others keep their order; of equally important tokens, the smaller index stays.
    """
    ranking = importance.argsort(dim=-1, descending=True, stable=True)
    num_staying = importance.shape[-1] - r
    keep = ranking[..., :num_staying].sort(dim=-1).values
    source = ranking[..., num_staying:].sort(dim=-1).values
    if key is None:
        return MergePlan(keep, source, None)

    _, match = best_match(take(key, source), take(key, keep))
    return MergePlan(keep, source, match)


class TokenAggregator(nn.Module):
    """One axis of one block: which of its tokens leave. Holds settings only; `r` may be changed at any time.

    Args:
        reducer: `geometry`, `importance`, `prune`, `tome` or `saliency`; see docs/ARCHITECTURE.md for the table. With
            the others nothing leaves in this way.
        axis: `time` merges frames, `space` patches within a frame, `joint` patches of all frames.
        r: how many tokens leave, or below 1 their share, capped at what the axis holds; 0 leaves the block's output
            unchanged to the bit.
        frame_match: how the patches of a frame agree, for geometry in time.
        order: of the output, for geometry.
        after_class_token: whether patches and joint tokens are numbered from 1, after a class token that never leaves.
        merge_weight: what tokens count for in the mean that they merge into, for `geometry` and `tome`: their sizes, or
            these times their saliency. That is ours.
    """

    def __init__(
        self,
        reducer: ReducerName,
        axis: Literal["time", "space", "joint"],
        r: int | float,
        frame_match: Literal["vote", "mean"] = "vote",
        order: Order = "reference",
        after_class_token: bool = True,
        merge_weight: Literal["size", "saliency"] = "size",
    ) -> None:
        super().__init__()
        self.reducer, self.axis, self.r, self.frame_match, self.order = (
            reducer,
            axis,
            r,
            frame_match,
            order,
        )
        self.after_class_token, self.merge_weight = after_class_token, merge_weight

    @property
    def needs(self) -> Needs:
        """What attention must return for `plan`: nothing if r = 0, so that it takes its fast path."""
        if self.r == 0:
            return "nothing"
        return "key and sharpness" if self.merge_weight == "saliency" else REDUCERS[self.reducer]

    def num_leaving(self, num_tokens: int) -> int:
        """How many of `num_tokens` leave: r, capped at what the axis holds."""
        return num_leaving(self.r, num_tokens, protected=int(self.axis == "time"))

    @torch.no_grad()
    def plan(self, attended: Attended, num_tokens: int, features: Tensor | None = None) -> MergePlan | None:
        """The plan for one axis of `num_tokens`, None where nothing leaves.

        `attended` has its key (..., N, K), importance (..., N) and sharpness (..., N) along the axis with the class
        token taken off; for time the leading dimensions are (B, L) and the plan's are (B,). `features` (..., N, D),
        what saliency compares, are the tokens that are to be merged.
        """
        r = self.num_leaving(num_tokens)
        if self.reducer == "none" or r == 0:
            return None
        if self.reducer in ("importance", "prune"):
            return self._plan_by_importance(attended, r)

        compared = features if self.reducer == "saliency" else attended.key
        assert compared is not None
        plan = self._plan_by_similarity(compared, num_tokens, r)
        if self.reducer != "saliency" and self.merge_weight == "size":
            return plan

        # Saliency is relative to the whole clip, so a frame with little to see loses more.
        assert attended.sharpness is not None
        weight = saliency(attended.sharpness.flatten(1)).view_as(attended.sharpness)
        if self.merge_weight == "size":
            return plan._replace(weight=weight.gather(-1, plan.source))

        # In time every patch of a frame has a saliency of its own, though all follow one plan.
        weight = weight.transpose(1, 2) if self.axis == "time" else weight
        return plan._replace(salience=weight.clamp(min=BACKGROUND))

    def _plan_by_importance(self, attended: Attended, r: int) -> MergePlan:
        """The least important tokens leave; there are no sets."""
        key, importance = attended.key, attended.importance
        assert key is not None and importance is not None
        if self.axis == "time":
            key, importance = key.mean(dim=1), importance.mean(dim=1)
        return plan_by_importance(importance, r, key if self.reducer == "importance" else None)

    def _plan_by_similarity(self, compared: Tensor, num_tokens: int, r: int) -> MergePlan:
        """Split the tokens into sets A and B, and merge the best matched of A."""
        by_vote = self.axis == "time" and self.frame_match == "vote"
        if self.axis == "time" and not by_vote:
            compared = compared.mean(dim=1)

        # The sets alternate: A has the even numbers. If the class token is number 0, the first patch is number 1,
        # so A starts at the second patch.
        first = int(self.after_class_token and self.axis != "time")
        positions = torch.arange(num_tokens, device=compared.device)
        in_a, in_b = positions[first::2], positions[1 - first :: 2]

        score, match = best_match(compared[..., first::2, :], compared[..., 1 - first :: 2, :])
        if by_vote:
            score, match = vote(score, match, len(in_b))
        return plan_bipartite(score, match, r, in_a, in_b, self.order)


def note_step(
    steps: list[AggregationStep] | None,
    aggregator: TokenAggregator,
    compared: Tensor,
    plan: MergePlan,
    origins: Tensor | None,
) -> None:
    """Append to `steps`, unless None, what an aggregator did: what it compared, its plan, the origins after it."""
    if steps is not None:
        assert origins is not None
        steps.append(AggregationStep(aggregator.axis, compared.detach(), plan, origins))
