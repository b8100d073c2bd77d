"""The objectives as functions of tensors.

Shapes: B rows of this process, G rows of all processes, Q entries of the queue, K = keys (G + Q, or B + Q).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.precision import without_autocast


def similarities(queries: Tensor, keys: Tensor) -> Tensor:
    """Products (B, K) of embeddings (B, E) and (K, E), in float32 whatever autocast says: bfloat16 knows no 0.001."""
    with without_autocast(queries.device):
        return queries.float() @ keys.float().T


def contrastive(similarity: Tensor, momentum_similarity: Tensor, positives: Tensor, alpha: float) -> Tensor:
    """Cross-entropy (B,) of similarities (B, K), divided by the temperature, with soft targets.

    The targets are `alpha` of the momentum twin's softmax and 1 - `alpha` spread evenly over the `positives` (B, K).
    """
    with torch.no_grad():
        target = positives.float() / positives.float().sum(dim=1, keepdim=True)
        target = alpha * momentum_similarity.float().softmax(dim=1) + (1 - alpha) * target
    return -(similarity.float().log_softmax(dim=1) * target).sum(dim=1)


def selection_noise(seed: int, step: int, part: int, rows: int) -> Tensor:
    """Gumbel noise (2, rows, rows) for drawing negatives, a function of the seed, the step and its part alone.

    Drawn on the CPU for the rows of all processes. Each process takes its own, so neither the number of processes nor
    the device changes it.
    """
    mixed = (seed * 1_000_003 + step) * 1_009 + part
    generator = torch.Generator().manual_seed(mixed % (2**63))
    uniform = torch.rand((2, rows, rows), generator=generator).clamp(1e-20, 1 - 1e-7)
    return -(-uniform.log()).log()


@torch.no_grad()
def draw_negatives(similarity: Tensor, positives: Tensor, noise: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Draw one column for each row, not a positive, with probability proportional to softmax(similarity) + floor.

    Args:
        similarity: (B, G), divided by the temperature.
        positives: (B, G) bool, columns that may not be drawn.
        noise: (B, G) Gumbel noise; the largest log-weight plus noise is a draw from the weights.
        floor: added to every weight; the reference's pre-training adds 1e-4, its fine-tuning nothing.

    Returns:
        Columns (B,), and whether the row had any to draw from (B,) bool.
    """
    log_weight = similarity.float().log_softmax(dim=1)
    if floor > 0:
        log_weight = (log_weight.exp() + floor).log()

    # The Gumbel-max trick: the largest log-weight plus noise is a draw from the weights.
    negatives = (log_weight + noise).masked_fill(positives, -torch.inf).argmax(dim=1)
    return negatives, ~positives.all(dim=1)


def matching(logits: Tensor, matches: Tensor, counted: Tensor) -> Tensor:
    """Summed cross-entropy of pair logits (P, 2) with `matches` (P,) in {0, 1}, over the rows that are `counted`."""
    loss = F.cross_entropy(logits.float(), matches, reduction="none")
    return torch.where(counted, loss, 0.0).sum()
