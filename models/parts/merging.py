"""What a plan does to tokens, sizes and origins: tokens of one axis leave, and others take them in.

Pure functions on tensors. Shapes: B batch, T frames, L patches, D width; N tokens along the axis that is reduced, r of
which leave.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class MergePlan(NamedTuple):
    """Which tokens of one axis stay, and where the others go. All indices are int64, without gradient.

    Attributes:
        keep: (..., N - r) position of each token that stays, in output order.
        source: (..., r) positions that leave.
        destination: (..., r) place *in the output* that each source merges into; None when sources are dropped.
        weight: (..., r) float, how much of each source its destination takes in: 1 merges it, 0 drops it; None: all 1.
        salience: (..., N, *) float, what each token of the axis counts for in a mean, besides its size; sizes still add
            up as they are. None: all alike.
    """

    keep: Tensor
    source: Tensor
    destination: Tensor | None
    weight: Tensor | None = None
    salience: Tensor | None = None


def merge(tokens: Tensor, size: Tensor, plan: MergePlan) -> tuple[Tensor, Tensor]:
    """Size-weighted mean of tokens (..., N, *, D) along the plan's axis, and the summed size (..., N, *).

    The plan's weight scales the size that a source brings along, and so its share of the mean; a plan with weights has
    no dimension between its axis and D. Its salience scales shares alone, also those of tokens that stay. The plan has
    the leading dimensions of `tokens`; what lies between its axis and D follows it unchanged (all patches of a frame).
    A token that nothing merges into keeps its exact bits.
    """
    # Flatten the plan's axis and all dimensions before it into rows, so that one index selects a token.
    axis, leading = plan.keep.ndim - 1, plan.keep.shape
    num_tokens = tokens.shape[axis]
    rows, row_sizes = tokens.flatten(0, axis), size.flatten(0, axis)
    if plan.weight is not None:
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))  # as the reference

    keep = _row_numbers(plan.keep, num_tokens)
    kept, kept_size = rows.index_select(0, keep), row_sizes.index_select(0, keep)

    # Add each source to its destination. Several sources may share one: `index_add_` sums them up.
    if plan.destination is not None:
        source = _row_numbers(plan.source, num_tokens)
        destination = _row_numbers(plan.destination, leading[-1])
        moved_size = row_sizes.index_select(0, source)
        if plan.weight is not None:
            moved_size = moved_size * plan.weight.flatten()
        mass, moved_mass = kept_size, moved_size
        if plan.salience is not None:
            salience = plan.salience.flatten(0, axis)
            mass = kept_size * salience.index_select(0, keep)
            moved_mass = moved_size * salience.index_select(0, source)
            mass.index_add_(0, destination, moved_mass)
        kept_size.index_add_(0, destination, moved_size)

        # Write the mean as a step from the token that stays towards each source: other tokens keep still.
        share = (moved_mass / mass.index_select(0, destination)).to(tokens.dtype).unsqueeze(-1)
        step = (rows.index_select(0, source) - kept.index_select(0, destination)) * share
        kept.index_add_(0, destination, step)

    return kept.to(tokens.dtype).unflatten(0, leading), kept_size.unflatten(0, leading)


def unmerge(tokens: Tensor, origins: Tensor) -> Tensor:
    """Give every original cell its final token: (B, N, D) and origins (B, T, L) to (B, T, L, D); 0 where dropped."""
    cells = take(tokens, origins.flatten(1).clamp(min=0)).unflatten(1, origins.shape[1:])
    return cells * (origins >= 0).unsqueeze(-1)


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


def take(values: Tensor, index: Tensor) -> Tensor:
    """The rows (..., M, D) of values (..., N, D) that index (..., M) names."""
    return values.gather(-2, index.unsqueeze(-1).expand(*index.shape, values.shape[-1]))


def _row_numbers(index: Tensor, num_tokens: int) -> Tensor:
    """Turn an index (..., M) along an axis of `num_tokens` into a flat one (M',) over that axis and all before it."""
    outer = torch.arange(math.prod(index.shape[:-1]), device=index.device).view(*index.shape[:-1], 1)
    return (index + outer * num_tokens).flatten()
