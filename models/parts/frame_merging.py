"""TempMe (ICLR 2025): neighbouring frames are joined to groups, across which and within which tokens merge.

For towers that see each frame alone, with a class token a frame. `configs.frame_merging` has the schedule. Class tokens
are apart and never merge, so joining groups is a view: no token moves, and origins stay as they are.
Shapes: B clips, G groups of frames, C class tokens of a group, N patches of a group, D width, K what is compared.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.aggregation import AggregationStep, best_match, plan_bipartite
from models.parts.merging import MergePlan, follow, merge


class Groups(NamedTuple):
    """The tokens of clips between two blocks.

    Attributes:
        cls: (B, G, C, D), one of each frame in a group, frame by frame.
        patches: (B, G, N, D).
        size: (B, G, N) float32, how many original cells each patch holds.
        origins: (B, T, L) for every original cell the flat index, over G and N, of the patch that holds it; None unless
            tracked.
    """

    cls: Tensor
    patches: Tensor
    size: Tensor
    origins: Tensor | None

    @classmethod
    def of_frames(cls, tokens_BTND: Tensor, return_origins: bool) -> "Groups":
        """Frames of tokens (B, T, 1 + L, D), each a group of its own."""
        patches = tokens_BTND[:, :, 1:]
        batch, num_frames, num_patches = patches.shape[:3]
        origins = None
        if return_origins:
            cells = torch.arange(num_frames * num_patches, device=patches.device)
            origins = cells.view(num_frames, num_patches).expand(batch, -1, -1)
        size = patches.new_ones((batch, num_frames, num_patches), dtype=torch.float32)
        return cls(tokens_BTND[:, :, :1], patches, size, origins)

    def joined(self, count: int, position_JD: Tensor | None = None) -> "Groups":
        """Groups of `count` neighbours each: their class tokens, then their patches, group by group.

        A vector of `position_JD` is added to all tokens of each of the neighbours.
        """
        batch, groups = self.size.shape[:2]
        assert groups % count == 0, "what is joined divides the groups"
        apart, wide = (batch, groups // count, count), (batch, groups // count)
        cls, patches = self.cls, self.patches
        if position_JD is not None:
            place = position_JD[None, None, :, None]
            cls = (cls.unflatten(1, apart[1:]) + place).flatten(1, 2)
            patches = (patches.unflatten(1, apart[1:]) + place).flatten(1, 2)
        return Groups(
            cls.reshape(*wide, -1, cls.shape[-1]),
            patches.reshape(*wide, -1, patches.shape[-1]),
            self.size.reshape(*wide, -1),
            self.origins,
        )

    def merged(self, compared_BGNK: Tensor, leaving: int, steps: list[AggregationStep] | None = None) -> "Groups":
        """The same groups with `leaving` patches fewer each, by the similarity of what is compared."""
        if not leaving:
            return self
        num_patches = self.size.shape[-1]
        plan = plan_in_groups(compared_BGNK, leaving, self.cls.shape[2])
        patches, size = merge(self.patches, self.size, plan)
        origins = None if self.origins is None else follow(self.origins, plan, num_patches, 1)
        if steps is not None:
            assert origins is not None
            axis: Literal["space", "joint"] = "space" if self.cls.shape[2] == 1 else "joint"
            steps.append(AggregationStep(axis, compared_BGNK.detach(), plan, origins))
        return Groups(self.cls, patches, size, origins)

    def log_size(self) -> Tensor:
        """What proportional attention adds to the scores of each key, (B, G, C + N); 0 for class tokens."""
        return F.pad(self.size.log(), (self.cls.shape[2], 0))


@torch.no_grad()
def plan_in_groups(compared_BGNK: Tensor, leaving: int, num_class_tokens: int) -> MergePlan:
    """Merge the best matched of set A into set B; what stays of A comes before B.

    Set A has the even places, counting from the class tokens, which stand before the patches and belong to no set.
    Departs from the reference: of ties the first leaves, and the sort is stable.
    """
    first = num_class_tokens % 2
    positions = torch.arange(compared_BGNK.shape[-2], device=compared_BGNK.device)
    in_a, in_b = positions[first::2], positions[1 - first :: 2]
    score, match = best_match(compared_BGNK[..., first::2, :], compared_BGNK[..., 1 - first :: 2, :])
    return plan_bipartite(score, match, leaving, in_a, in_b, "reference")


def merged_across(
    groups: Groups,
    count: int,
    leaving: int,
    position_JD: Tensor | None = None,
    steps: list[AggregationStep] | None = None,
) -> Groups:
    """Join `count` neighbours at a time, and merge `leaving` patches of each new group, before its block.

    Compared are the tokens themselves, before positions are added. Departs from the reference, which adds no positions
    where nothing leaves.
    """
    compared = groups.joined(count).patches.detach()
    return groups.joined(count, position_JD).merged(compared, leaving, steps)
