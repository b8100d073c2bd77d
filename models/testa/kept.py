"""TESTA's blocks over some of a video's patches (run-length tokens), of which they take none away.

Shapes: B batch, T frames, L patches a frame, M tokens of the longest row, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.parts.kept_grid import KeptGrid
from models.parts.packed_rows import PackedRows, through_packed
from models.parts.run_length import KeptPatches
from models.parts.squares import Squares
from models.testa.blocks import DividedBlock


def through_kept(
    blocks: nn.ModuleList,
    cls_B1D: Tensor,
    tokens_BMD: Tensor,
    kept: KeptPatches | Squares,
    weigh_lengths: bool,
    *,
    recompute: bool,
) -> tuple[Tensor, Tensor]:
    """Class token and tokens after all blocks; joint attention works on packed rows, whose lengths the host knows."""
    if isinstance(blocks[0], DividedBlock):
        assert isinstance(kept, KeptPatches), "squares are for joint attention"
        grid = KeptGrid.of(kept, weigh_lengths)
        for block in blocks:
            assert isinstance(block, DividedBlock)
            if recompute:
                cls_B1D, tokens_BMD = checkpoint(over_kept, block, cls_B1D, tokens_BMD, grid, use_reentrant=False)
            else:
                cls_B1D, tokens_BMD = over_kept(block, cls_B1D, tokens_BMD, grid)
        return cls_B1D, tokens_BMD

    assert kept.counts is not None, "rows of one length need no packing"
    together = torch.cat([cls_B1D, tokens_BMD], dim=1)
    rows = PackedRows.of(tuple(1 + count for count in kept.counts), together.shape[1], together.device)
    size = F.pad(kept.sizes(weigh_lengths), (1, 0), value=1.0)
    together = through_packed(blocks, together, size, rows, weigh_lengths, recompute)
    return together[:, :1], together[:, 1:]


def over_kept(block: DividedBlock, cls_B1D: Tensor, tokens_BMD: Tensor, grid: KeptGrid) -> tuple[Tensor, Tensor]:
    """The next class token and tokens; nothing merges.

    Each frame that has patches left attends with its copy of the class token, whose update is the mean over those
    frames.
    """
    num_frames, num_patches = grid.size.shape[1:]

    # Over time, each patch among those of its place; the first frame has all, so no place is empty.
    projected = block.temporal_attn.projected(block.temporal_norm1(tokens_BMD).unsqueeze(2))
    in_grid = [grid.spread(part.squeeze(2)) for part in projected]
    context = grid.collect(block.temporal_attn.attend(in_grid, grid.bias.transpose(1, 2)))
    update = block.temporal_update(context, block.folds(num_frames, num_patches), grid.frame, num_frames)
    tokens = tokens_BMD + block.drop_path(update)

    # Within each frame, with the class token.
    together = torch.cat([cls_B1D, tokens], dim=1)
    projected = block.attn.projected(block.norm1(together).unsqueeze(2))
    frames = []
    for part in projected:
        of_cls, of_patches = part.squeeze(2).split([1, part.shape[1] - 1], dim=1)
        copies = of_cls.unsqueeze(1).expand(-1, num_frames, -1, -1)
        frames.append(torch.cat([copies, grid.spread(of_patches)], dim=2).flatten(0, 1).unsqueeze(2))
    bias = F.pad(grid.bias, (1, 0)).flatten(0, 1).unsqueeze(1)
    context = block.attn.attend(frames, bias).squeeze(2).unflatten(0, (-1, num_frames))

    update = block.attn.proj(torch.cat([context[:, :, 0], grid.collect(context[:, :, 1:])], dim=1))
    of_cls, of_patches = update.split([num_frames, tokens.shape[1]], dim=1)
    update = torch.cat([grid.mean_over_frames(of_cls), of_patches], dim=1)
    together = together + block.drop_path(update)

    together = together + block.drop_path(block.mlp(block.norm2(together)))
    return together[:, :1], together[:, 1:]
