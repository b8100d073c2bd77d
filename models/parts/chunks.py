"""Long videos in chunks: how many frames or patches go through a step at a time, so that memory stays bounded.

Attention within frames and the MLP treat frames apart, attention over time treats patches apart. So each step can take
a few frames, or a few patches of all frames, at a time and give the same result.
Shapes: B batch, T frames, L patches a frame, D width.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.parts.aggregation import MergePlan, merge

WIDTHS_PER_TOKEN = 16
"""Vectors of the model's width that a step holds for each of its tokens, at most: an MLP has about 10, attention 8."""
BYTES_PER_NUMBER = 4
GIB = 2**30

Result = TypeVar("Result")


class Chunks(NamedTuple):
    """How much of one video a step takes at a time.

    Attributes:
        frames: whole frames, for attention within frames and the MLP.
        patches: places, each with all its frames, for attention over time.
    """

    frames: int
    patches: int


def chunks_within(memory_gib: float, num_frames: int, num_patches: int, width: int) -> Chunks | None:
    """The largest chunks that one video's steps fit into `memory_gib` GiB with; None if the whole video does.

    Counts float32, so that every precision has the same chunks, and a single video, so that its result does not depend
    on its batch. A chunk has at least one frame and one place.
    """
    tokens_at_once = int(memory_gib * GIB) // (WIDTHS_PER_TOKEN * BYTES_PER_NUMBER * width)
    if num_frames * num_patches <= tokens_at_once:
        return None
    frames = min(num_frames, max(1, tokens_at_once // num_patches))
    patches = min(num_patches, max(1, tokens_at_once // num_frames))
    return Chunks(frames, patches)


def spans(length: int, at_once: int) -> Iterator[slice]:
    """Slices of at most `at_once` that cover `length` in order; the last may be shorter."""
    for start in range(0, length, at_once):
        yield slice(start, min(start + at_once, length))


def residual_dtype(parameter: Tensor) -> torch.dtype:
    """What tokens are kept in between blocks: autocast's dtype where it is on, else that of the weights."""
    device_type = parameter.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return parameter.dtype


def residual_scale(drop_path: nn.Module, batch: Tensor) -> Tensor | None:
    """What stochastic depth multiplies each sample's updates with, (B, 1, 1, 1): one draw for all chunks. None: 1."""
    if not drop_path.training or not getattr(drop_path, "drop_prob", 0):
        return None
    return drop_path(batch.new_ones(len(batch), 1, 1, 1))


def add_residual(tokens: Tensor, update: Tensor, scale: Tensor | None) -> Tensor:
    """Tokens plus their update times `scale`, in the tokens' dtype."""
    return (tokens + (update if scale is None else scale * update)).to(tokens.dtype)


def plus_update(tokens: Tensor, update: Tensor) -> Tensor:
    """Tokens plus a fresh update, which is written over where no gradient needs it."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or tokens.dtype != update.dtype:
        return tokens + update
    return update.add_(tokens)


def run_step(step: Callable[..., Result], *arguments: Any) -> Result:
    """Run a step on a chunk; in training, keep only its arguments and compute it again for the gradient."""
    if torch.is_grad_enabled():
        return checkpoint(step, *arguments, use_reentrant=False)
    return step(*arguments)


class Assembled:
    """The chunks of a new tensor, put together along one dimension.

    Without gradients each chunk is written to its place at once, so that no second copy of the whole ever exists; for
    gradients the chunks are kept and concatenated.

    Args:
        dim: the dimension that is chunked.
        length: the size of the whole along it.
        target: where to write, if the chunks replace an existing tensor of the same size; None makes a new one.
    """

    def __init__(self, dim: int, length: int, target: Tensor | None = None) -> None:
        self.dim, self.length, self.target = dim, length, target
        self.parts: list[Tensor] = []

    def put(self, span: slice, part: Tensor) -> None:
        """Take the chunk that lies at `span` of the whole; chunks come in order."""
        if torch.is_grad_enabled():
            self.parts.append(part)
            return

        if self.target is None:
            shape = list(part.shape)
            shape[self.dim] = self.length
            self.target = part.new_empty(shape)
        self.target.narrow(self.dim, span.start, span.stop - span.start).copy_(part)

    def whole(self) -> Tensor:
        """The tensor, once all chunks were put."""
        if self.parts:
            return torch.cat(self.parts, dim=self.dim)
        assert self.target is not None, "nothing was put"
        return self.target


def plan_of(plan: MergePlan, frames: slice) -> MergePlan:
    """The plan for the patches of some frames, of one for all of them."""
    destination = None if plan.destination is None else plan.destination[:, frames]
    weight = None if plan.weight is None else plan.weight[:, frames]
    salience = None if plan.salience is None else plan.salience[:, frames]
    return MergePlan(plan.keep[:, frames], plan.source[:, frames], destination, weight, salience)


def joined(parts: list[Tensor | None]) -> Tensor | None:
    """What attention returned about all chunks, along the second dimension; None where it was not asked for."""
    present = [part for part in parts if part is not None]
    return torch.cat(present, dim=1) if present else None


def merge_and_transform(
    tokens: Tensor,
    size: Tensor,
    plan: MergePlan | None,
    frames_at_once: int,
    transform: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Merge the patches of each frame by a plan, then transform them, a few frames at a time.

    Tokens (B, T, L, D) and size (B, T, L) come back with the patches that stay. Without gradients and without a plan,
    the tokens are written to where they are.
    """
    num_frames = tokens.shape[1]

    def step(part: Tensor, part_size: Tensor, part_plan: MergePlan | None) -> tuple[Tensor, Tensor]:
        if part_plan is not None:
            part, part_size = merge(part, part_size, part_plan)
        return transform(part), part_size

    # Frames with fewer patches need a tensor of their own.
    transformed = Assembled(1, num_frames, target=tokens if plan is None else None)
    sizes = []
    for frames in spans(num_frames, frames_at_once):
        part_plan = None if plan is None else plan_of(plan, frames)
        part, part_size = run_step(step, tokens[:, frames], size[:, frames], part_plan)
        transformed.put(frames, part)
        sizes.append(part_size)
    return transformed.whole(), torch.cat(sizes, dim=1)
