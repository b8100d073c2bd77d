"""Assign trajectories to nouns and actions to verbs, and the loss of the assignment.

Shapes: B clips, R rows (trajectories or actions), S text tokens, E shared width.
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models.parts.precision import without_autocast
from models.parts.processes import Summed

UNMATCHED = -1


@torch.no_grad()
def assign(rows_BRE: Tensor, row_mask_BR: Tensor, text_BSE: Tensor, column_mask_BS: Tensor) -> Tensor:
    """Assign each row a text token, int64 (B, R), or -1, with the largest total score in each clip.

    A score is the share of a token in the softmax over the clip's allowed tokens, of dot products with a row. As many
    rows are matched as there are allowed rows and tokens.
    """
    with without_autocast(rows_BRE.device):
        products = torch.einsum("B R E, B S E -> B R S", rows_BRE.float(), text_BSE.float())
    scores = products.masked_fill(~column_mask_BS[:, None], -torch.inf).softmax(dim=-1)

    # The assignment runs on the CPU: one transfer there, one back.
    shares, row_mask, column_mask = (part.cpu().numpy() for part in (scores, row_mask_BR, column_mask_BS))
    found = torch.full(row_mask.shape, UNMATCHED, dtype=torch.int64)
    for clip in range(len(found)):
        rows, columns = row_mask[clip].nonzero()[0], column_mask[clip].nonzero()[0]
        if not len(rows) or not len(columns):
            continue
        chosen_rows, chosen_columns = linear_sum_assignment(shares[clip][rows][:, columns], maximize=True)
        found[clip, torch.from_numpy(rows[chosen_rows])] = torch.from_numpy(columns[chosen_columns])
    return found.to(rows_BRE.device)


def squared_distance(rows_BRE: Tensor, text_BSE: Tensor, assignment_BR: Tensor) -> Summed:
    """Squared differences between each row and its text token, over all coordinates of all pairs."""
    is_matched = assignment_BR != UNMATCHED
    index = assignment_BR.clamp(min=0).unsqueeze(-1).expand(-1, -1, text_BSE.shape[-1])
    target = text_BSE.gather(1, index)
    squared = (rows_BRE.float() - target.float()).square()
    total = torch.where(is_matched.unsqueeze(-1), squared, 0.0).sum()
    return Summed(total, is_matched.sum() * text_BSE.shape[-1])
