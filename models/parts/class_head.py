"""A linear classifier on the video embedding of any model that makes one.

Shapes: B videos, E width of the embedding, C classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.precision import without_autocast


class ClassHead(nn.Module):
    """Standardise an embedding, drop some of its entries, and multiply it by a matrix.

    `mean` and `std` are not trained: a probe sets them to those of its training set; otherwise they bring the entries
    of a unit vector to mean square 1.

    Args:
        seed: the first weights follow from it alone, so that all processes begin with the same ones.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, num_classes: int, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.dropout = dropout
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.full((width,), width**-0.5))
        self.linear = nn.Linear(width, num_classes)
        with torch.no_grad():
            self.linear.weight.normal_(std=0.01, generator=torch.Generator().manual_seed(seed))
            self.linear.bias.zero_()

    @property
    def num_classes(self) -> int:
        """How many classes it tells apart."""
        return self.linear.out_features

    @torch.no_grad()
    def set_to(self, mean: Tensor, std: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Take a fitted classifier: statistics (E,) of its features, weight (C, E) and bias (C,)."""
        for own, fitted in ((self.mean, mean), (self.std, std), (self.linear.weight, weight), (self.linear.bias, bias)):
            own.copy_(fitted)

    def forward(self, embedding_BE: Tensor) -> Tensor:
        """Logits (B, C), float32 whatever the precision around it."""
        with without_autocast(embedding_BE.device):
            standard = (embedding_BE.float() - self.mean) / self.std
            return self.linear(F.dropout(standard, self.dropout, self.training))
