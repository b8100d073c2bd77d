"""Merging and dropping tokens: plans made from keys or attention, and what a plan does to tokens, sizes and origins.

Pure functions first, one thin module (`TokenAggregator`) last. TESTA (EMNLP 2023), section 3.2, after ToMe (ICLR 2023);
vid-TLDR (CVPR 2024), section 3.
Shapes: B batch, T frames, L patches, D width, K head width; N tokens along the axis that is reduced, r of which leave.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schedule import num_leaving
from models.parts.attention import Attended, Needs
from models.parts.sharpness import saliency

Order = Literal["reference", "sorted"]
REDUCERS: dict[str, Needs] = {
    "none": "nothing",
    "geometry": "key",
    "importance": "probabilities",
    "prune": "probabilities",
    "tome": "key",
    "saliency": "sharpness",
}
"""What each reducer needs of attention. Which of them an encoder can do, the `model` section of its system says."""
SIMILARITIES_AT_ONCE = 2**22
"""Similarities of one sample that exist at a time while matches are sought: 32 MB in float64."""


class MergePlan(NamedTuple):
    """Which tokens of one axis stay, and where the others go. All indices are int64, without gradient.

    Attributes:
        keep: (..., N - r) position of each token that stays, in output order.
        source: (..., r) positions that leave.
        destination: (..., r) place *in the output* that each source merges into; None when sources are dropped.
        weight: (..., r) float, how much of each source its destination takes in: 1 merges it, 0 drops it; None: all 1.
    """

    keep: Tensor
    source: Tensor
    destination: Tensor | None
    weight: Tensor | None = None


class AggregationStep(NamedTuple):
    """What one axis of one block did, for inspection.

    Attributes:
        axis: `time`, `space` or `joint`.
        key: what was compared, as `TokenAggregator.plan` takes it: (B, L, T, K) for time, (B, T, L, K) for space and
            (B, N, K) for joint.
        plan: what followed from it.
        origins: (B, T, L) after this step, for every original cell the flat index of the token that holds it, not
            counting the class token; -1: dropped.
    """

    axis: Literal["time", "space", "joint"]
    key: Tensor
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
            key_a.flatten(0, -3).split(groups_at_once), key_b.flatten(0, -3).split(groups_at_once), strict=True
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


def vote(score: Tensor, match: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
    """Let the patches of each frame vote on its match and its score, (B, L, N) to (B, N).

    The most frequent value wins; ties go to the smallest, so if all scores differ, the worst patch decides. This is the
    rule of the released TESTA; the paper uses the mean key (`frame_match: mean`). Returns score and match.
    """
    # Matches are small integers: count the votes for each candidate.
    count = torch.zeros(*match.shape[::2], candidates, dtype=torch.int64, device=match.device)
    count = count.scatter_add(-1, match.transpose(1, 2), torch.ones_like(match).transpose(1, 2))

    # Scores are floats: in sorted order, equal scores form runs. `run_length` counts up along each run, so its
    # first maximum ends the longest run, whose score is the mode.
    ascending = score.transpose(1, 2).sort(dim=-1).values
    position = torch.arange(ascending.shape[-1], device=score.device)
    starts = torch.cat([torch.ones_like(ascending[..., :1], dtype=torch.bool), ascending.diff(dim=-1) != 0], dim=-1)
    run_length = position - torch.where(starts, position, 0).cummax(dim=-1).values
    longest = run_length.argmax(dim=-1, keepdim=True)

    return ascending.gather(-1, longest).squeeze(-1), count.argmax(dim=-1)


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
    source, left_of_a = in_a[ranking[..., :r]], in_a[ranking[..., r:].sort(dim=-1).values]

    keep = torch.cat([left_of_a, in_b.expand(*match.shape[:-1], -1)], dim=-1)
    if order == "sorted":
        keep = keep.sort(dim=-1).values

    # Each destination moves to its place in the output.
    position = in_b[match.gather(-1, ranking[..., :r])]
    slots = output_slots(keep, len(in_a) + len(in_b))
    return MergePlan(keep, source, slots.gather(-1, position))


def plan_by_importance(importance: Tensor, r: int, key: Tensor | None) -> MergePlan:
    """Remove the r least important tokens (..., N): merge them into the most similar others, or drop them without key.

    Equation 1 of TESTA. The others keep their order; of equally important tokens, the smaller index stays.
    """
    ranking = importance.argsort(dim=-1, descending=True, stable=True)
    remaining = importance.shape[-1] - r
    keep, source = ranking[..., :remaining].sort(dim=-1).values, ranking[..., remaining:].sort(dim=-1).values
    if key is None:
        return MergePlan(keep, source, None)

    _, match = best_match(_take(key, source), _take(key, keep))
    return MergePlan(keep, source, match)


def merge(tokens: Tensor, size: Tensor, plan: MergePlan) -> tuple[Tensor, Tensor]:
    """Size-weighted mean of tokens (..., N, *, D) along the plan's axis, and the summed size (..., N, *).

    The plan's weight scales the size that a source brings along, and so its share of the mean; a plan with weights has
    no dimension between its axis and D. The plan has the leading dimensions of `tokens`; what lies between its axis and
    D follows it unchanged (all patches of a frame). A token that nothing merges into keeps its exact bits.
    """
    # Flatten the plan's axis and all dimensions before it into rows, so that one index selects a token.
    num_tokens, leading = tokens.shape[plan.keep.ndim - 1], plan.keep.shape
    rows, row_sizes = tokens.flatten(0, plan.keep.ndim - 1), size.flatten(0, plan.keep.ndim - 1)
    if plan.weight is not None:
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))  # as the reference

    keep = _row_numbers(plan.keep, num_tokens)
    kept, kept_size = rows.index_select(0, keep), row_sizes.index_select(0, keep)

    # Add each source to its destination. Several sources may share one: `index_add_` sums them up.
    if plan.destination is not None:
        source, destination = _row_numbers(plan.source, num_tokens), _row_numbers(plan.destination, leading[-1])
        moved_size = row_sizes.index_select(0, source)
        if plan.weight is not None:
            moved_size = moved_size * plan.weight.flatten()
        kept_size.index_add_(0, destination, moved_size)

        share = (moved_size / kept_size.index_select(0, destination)).to(tokens.dtype).unsqueeze(-1)
        # Write the weighted mean as a step from the token that stays towards each source: other tokens keep still.
        step = (rows.index_select(0, source) - kept.index_select(0, destination)) * share
        kept.index_add_(0, destination, step)
    return kept.to(tokens.dtype).unflatten(0, leading), kept_size.unflatten(0, leading)


def unmerge(tokens: Tensor, origins: Tensor) -> Tensor:
    """Give every original cell its final token: (B, N, D) and origins (B, T, L) to (B, T, L, D); 0 where dropped."""
    spread = _take(tokens, origins.flatten(1).clamp(min=0)).unflatten(1, origins.shape[1:])
    return spread * (origins >= 0).unsqueeze(-1)


def output_slots(keep: Tensor, num_tokens: int) -> Tensor:
    """The place in the output of each of `num_tokens` positions, (..., N); -1 where a token leaves."""
    slots = torch.full((*keep.shape[:-1], num_tokens), -1, dtype=torch.int64, device=keep.device)
    return slots.scatter(-1, keep, torch.arange(keep.shape[-1], device=keep.device).expand_as(keep))


def follow(origins: Tensor, plan: MergePlan, num_tokens: int, inner: int) -> Tensor:
    """Carry `origins` through a plan.

    Args:
        origins: (B, T, L) for every original cell the flat index of the token that holds it, -1 if dropped.
        plan: along an axis of `num_tokens`, with the dimensions outside that axis leading.
        inner: number of tokens inside one step of the axis: L when frames merge, 1 when patches do.
    """
    # Where each position of the axis ends up: in its own slot, in its destination's, or nowhere (-1).
    slots = output_slots(plan.keep, num_tokens)
    if plan.destination is not None:
        destination = plan.destination
        if plan.weight is not None:
            destination = destination.masked_fill(plan.weight == 0, -1)  # nothing of it is left
        slots = slots.scatter(-1, plan.source, destination)

    # Split each flat index into its step on the axis and its offset inside that step, and move the step.
    # `step // num_tokens` indexes the dimensions before the axis, whose length shrinks to that of `keep`.
    held = origins.clamp(min=0).flatten(1)
    step, offset = held // inner, held % inner
    slot = slots.flatten(1).gather(1, step)
    moved = (step // num_tokens * plan.keep.shape[-1] + slot) * inner + offset

    return torch.where((origins.flatten(1) < 0) | (slot < 0), -1, moved).view_as(origins)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """The rows (..., M, D) of values (..., N, D) that index (..., M) names."""
    return values.gather(-2, index.unsqueeze(-1).expand(*index.shape, values.shape[-1]))


def _row_numbers(index: Tensor, num_tokens: int) -> Tensor:
    """Turn an index (..., M) along an axis of `num_tokens` into a flat one (M',) over that axis and all before it."""
    outer = torch.arange(math.prod(index.shape[:-1]), device=index.device).view(*index.shape[:-1], 1)
    return (index + outer * num_tokens).flatten()


class TokenAggregator(nn.Module):
    """One axis of one block: which of its tokens leave. Holds settings only; `r` may be changed at any time.

    Args:
        reducer: `geometry`, `importance`, `prune`, `tome` or `saliency`; see docs/ARCHITECTURE.md for the table.
        axis: `time` merges frames, `space` patches within a frame, `joint` patches of all frames.
        r: how many tokens leave, or below 1 their share, capped at what the axis holds; 0 leaves the block's output
            unchanged to the bit.
        frame_match: how the patches of a frame agree, for geometry in time.
        order: of the output, for geometry.
        after_class_token: whether patches and joint tokens are numbered from 1, after a class token that never leaves.
    """

    def __init__(
        self,
        reducer: Literal["none", "geometry", "importance", "prune", "tome", "saliency"],
        axis: Literal["time", "space", "joint"],
        r: int | float,
        frame_match: Literal["vote", "mean"] = "vote",
        order: Order = "reference",
        after_class_token: bool = True,
    ) -> None:
        super().__init__()
        self.reducer, self.axis, self.r, self.frame_match, self.order = reducer, axis, r, frame_match, order
        self.after_class_token = after_class_token

    @property
    def needs(self) -> Needs:
        """What attention must return for `plan`: nothing if r = 0, so that it takes its fast path."""
        return "nothing" if self.r == 0 else REDUCERS[self.reducer]

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

        # By importance: the least important tokens leave; there are no sets.
        key, importance = attended.key, attended.importance
        if self.reducer in ("importance", "prune"):
            assert key is not None and importance is not None
            if self.axis == "time":
                key, importance = key.mean(dim=1), importance.mean(dim=1)
            return plan_by_importance(importance, r, key if self.reducer == "importance" else None)

        # By similarity: split the tokens into sets A and B, and merge the best matched of A.
        if self.reducer == "saliency":
            key = features
        assert key is not None

        # The sets alternate: A has the even numbers. If the class token is number 0, the first patch is number 1, so A
        # starts at the second patch.
        positions = torch.arange(num_tokens, device=key.device)
        first = int(self.after_class_token and self.axis != "time")
        in_a, in_b = positions[first::2], positions[1 - first :: 2]

        by_patch = self.axis == "time" and self.frame_match == "vote"
        if self.axis == "time" and not by_patch:
            key = key.mean(dim=1)

        score, match = best_match(key[..., first::2, :], key[..., 1 - first :: 2, :])
        if by_patch:
            score, match = vote(score, match, len(in_b))
        plan = plan_bipartite(score, match, r, in_a, in_b, self.order)

        if self.reducer == "saliency":
            assert attended.sharpness is not None
            # Saliency is relative to the whole clip, so a frame with little to see loses more.
            weight = saliency(attended.sharpness.flatten(1)).view_as(attended.sharpness)
            plan = plan._replace(weight=weight.gather(-1, plan.source))
        return plan


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
