"""Object tokens of each frame, and trajectories: one token for each class of objects in a clip.

Shapes: B clips, T frames, L patches a frame, O boxes a frame, N trajectories, D width, E width of the shared space.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from models.parts.precision import without_autocast
from models.stoa.blocks import SequenceEncoder, blocks_of, read, seen_of

NO_BOX = -1.0
"""The first coordinate of a box that is padding."""


class ClipObjects(NamedTuple):
    """The boxes of a batch of clips, in the pixels of the frames that the model sees.

    Attributes:
        boxes: (B, T, O, 4), x1 y1 x2 y2; padding has `x1 == -1`.
        classes: (B, T, O), class of each box, from 1; 0 is padding.
        trajectory_ids: (B, N), the classes that get a trajectory; 0 is padding.
    """

    boxes: Tensor
    classes: Tensor
    trajectory_ids: Tensor

    @classmethod
    def of_extras(cls, extras: Mapping[str, Tensor]) -> "ClipObjects | None":
        """What goes along with clips under these names; None if no boxes do."""
        return cls(*(extras[name] for name in cls._fields)) if cls._fields[0] in extras else None

    @property
    def padding(self) -> Tensor:
        """(B, T, O) bool, True where there is no box."""
        return self.boxes[..., 0] == NO_BOX


class ObjectEncoder(nn.Module):
    """A token for each box: what the patches below it show, where it is, and its rank in the frame."""

    def __init__(self, width: int, num_frames: int, objects_per_frame: int) -> None:
        super().__init__()
        self.box_categories = nn.Parameter(torch.zeros(num_frames, objects_per_frame, width))
        self.patch_to_d = _bias_free_mlp(width, width // 2, width)
        self.c_coord_to_feature = _bias_free_mlp(4, width // 2, width)

    def forward(self, patches_BTLD: Tensor, boxes_BTO4: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
        """Object tokens (B, T, O, D); nothing reads those of boxes that are padding.

        What a box shows is the maximum over an RoIAlign of as many cells as the frame has patches.

        Args:
            patches_BTLD: tokens of the patches, row by row.
            boxes_BTO4: in pixels of the frame.
            grid: rows and columns of patches, whose sides are `patch_size` pixels.
        """
        height, width = (patch_size * side for side in grid)
        coordinates = self.c_coord_to_feature(boxes_BTO4 / boxes_BTO4.new_tensor([width, height, width, height]))
        ranks = self.box_categories[: boxes_BTO4.shape[1]]

        # Padding shows nothing, and costs nothing.
        is_box = boxes_BTO4[..., 0] != NO_BOX
        shown_RD = self._appearance(patches_BTLD, boxes_BTO4[is_box], is_box, grid, patch_size)
        appearance = shown_RD.new_zeros(coordinates.shape).masked_scatter(is_box.unsqueeze(-1), shown_RD)
        return appearance + ranks + coordinates

    def _appearance(
        self, patches_BTLD: Tensor, boxes_R4: Tensor, is_box_BTO: Tensor, grid: tuple[int, int], patch_size: int
    ) -> Tensor:
        """What each box shows, (R, D)."""
        narrow, _, widen, activation = self.patch_to_d

        # RoIAlign is linear, and so is the first layer, which has no bias: it is cheaper before, on patches, than
        # after, on grids of overlapping boxes.
        maps = rearrange(narrow(patches_BTLD), "B T (h w) C -> (B T) C h w", h=grid[0])
        frame_R = is_box_BTO.flatten(0, 1).nonzero()[:, 0]
        with without_autocast(maps.device):
            rois_R5 = torch.cat([frame_R[:, None].float(), boxes_R4.float()], dim=1)
            regions = roi_align(maps.float(), rois_R5, output_size=grid, spatial_scale=1 / patch_size, aligned=True)

        # ReLU is monotonic: after the maximum it costs a grid less. `max` keeps indices alone for the gradient.
        samples = rearrange(regions, "R C h w -> R (h w) C").to(maps.dtype)
        return activation(widen(F.relu(samples)).max(dim=1).values)


class TrajectoryEncoder(SequenceEncoder):
    """All boxes of one class in a clip as one token, by one block whose only query is a learned class token."""

    def __init__(self, width: int, heads: int, embed_dim: int) -> None:
        super().__init__(width, heads, 1, embed_dim)

    def forward(self, tokens_BND: Tensor, classes_BN: Tensor, ids_BC: Tensor, class_token_1D: Tensor) -> Tensor:
        """Trajectories (B, C, E), zero where an id is 0.

        The reference runs the block on every token of a copy of the clip for each class; here all classes share keys
        and values, and the class token alone is computed. Equal, as nothing else is read.

        Args:
            tokens_BND: the object tokens of all frames.
            classes_BN: the class of each.
            ids_BC: the classes wanted. One without a box sees the class token alone.
        """
        (block,) = blocks_of(self.transformer)
        class_token = class_token_1D.to(tokens_BND.dtype).expand(len(tokens_BND), 1, -1)
        seen = seen_of(block, torch.cat([class_token, tokens_BND], dim=1))
        is_own_class = ids_BC[:, :, None] == classes_BN[:, None, :]
        mask = F.pad(is_own_class, (1, 0), value=True).unsqueeze(1)

        queries = class_token.expand(-1, ids_BC.shape[1], -1)
        trajectories = self.project(read(block, queries, seen, mask))
        return trajectories * (ids_BC != 0).unsqueeze(-1)


class ActionEncoder(SequenceEncoder):
    """What each learned action query finds in every frame, read over time."""

    def __init__(self, width: int, heads: int, embed_dim: int) -> None:
        super().__init__(width, heads, 2, embed_dim)

    def forward(
        self,
        queries_AD: Tensor,
        tapped_BTLD: Tensor,
        objects_BTOD: Tensor | None,
        padding_BTO: Tensor | None,
    ) -> Tensor:
        """Actions (B, A, E).

        Args:
            queries_AD: the learned queries.
            tapped_BTLD: tokens of each frame from the middle of the video tower, class token first.
            objects_BTOD: object tokens, which the queries see beside the patches; None for a model without objects.
            padding_BTO: True where an object is padding, which no query sees.
        """
        class_tokens, seen = tapped_BTLD[:, :, 0], tapped_BTLD[:, :, 1:]
        is_hidden = torch.zeros(seen.shape[:3], dtype=torch.bool, device=seen.device)
        if objects_BTOD is not None:
            assert padding_BTO is not None
            seen = torch.cat([seen, objects_BTOD.to(seen.dtype)], dim=2)
            is_hidden = torch.cat([is_hidden, padding_BTO], dim=2)

        # Plain dot products, without scale or projection; keys are values.
        scores = torch.einsum("A D, B T N D -> B T A N", queries_AD.to(seen.dtype), seen)
        scores = scores.float().masked_fill(is_hidden.unsqueeze(2), -torch.inf)
        found = torch.einsum("B T A N, B T N D -> B A T D", scores.softmax(dim=-1).to(seen.dtype), seen)

        num_actions = len(queries_AD)
        clip_token = class_tokens.mean(dim=1)[:, None, None].expand(-1, num_actions, 1, -1)
        sequences = torch.cat([clip_token, found], dim=2)
        return self.read_first(sequences.flatten(0, 1)).unflatten(0, (-1, num_actions))


def _bias_free_mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    layers = (nn.Linear(inputs, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, outputs, bias=False), nn.ReLU())
    return nn.Sequential(*layers)
