"""Attention of texts to themselves and to contexts that they share, over padded texts or over real tokens alone.

Shapes: P texts, S tokens, R real tokens of all texts, V contexts, N context tokens, D width, H heads, K head width.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from configs.schema import TextConfig
from models.parts.dropped_attention import DroppedAttention

NORM_EPS = 1e-12


class KeysValues(NamedTuple):
    """Keys and values (V, H, N, K) of one layer."""

    keys: Tensor
    values: Tensor

    def rows(self, about_P: Tensor) -> "KeysValues":
        """Copies of the rows `about_P`."""
        # Not `keys[about_P]`: on several CPU threads its gradient adds up rows in no fixed order.
        return KeysValues(self.keys.index_select(0, about_P), self.values.index_select(0, about_P))


class Memory:
    """What texts attend to of some videos: the keys and values of each layer of the text tower.

    Args:
        layers: all of them, or an iterator that makes each when it is reached, which can be used once.
    """

    def __init__(self, layers: Iterable[KeysValues]) -> None:
        self.layers = layers

    def rows(self, about_P: Tensor) -> "Memory":
        """The memory of the videos `about_P`; a layer is copied when it is reached."""
        return Memory(layer.rows(about_P) for layer in self.layers)


class Share(NamedTuple):
    """What `texts` consecutive texts attend to: each row of `of` serves equally many of them, in their order.

    `mask` is bool, True where a key may be seen, of a shape that spreads to (V, H, texts / V * S, N).
    """

    texts: int
    of: KeysValues
    mask: Tensor | None = None


class Packing(NamedTuple):
    """Where the real tokens of padded texts (P, S) stand, for what need not be done for padding.

    Attributes:
        places_R: rows of the flattened texts that are real, in order; the last may be repeated.
        first_P: of each text, which of these is its first token.
    """

    places_R: Tensor
    first_P: Tensor
    num_texts: int
    length: int

    @classmethod
    def of(cls, mask_PS: Tensor) -> "Packing | None":
        """None where nothing is padding. Waits for the device, so it is not for training steps.

        Without gradient the last place stands several times, for up to a sixteenth more rows than are real: kernels are
        made, and memory is kept, for each number of rows, so there should be few.
        """
        if bool(mask_PS.all()):
            return None
        count_P, places_R = mask_PS.sum(dim=1), mask_PS.flatten().nonzero().squeeze(1)
        step = 1 if torch.is_grad_enabled() else 1 << max(0, len(places_R).bit_length() - 5)
        repeated = places_R[-1:].expand(-len(places_R) % step)
        return cls(torch.cat([places_R, repeated]), count_P.cumsum(dim=0) - count_P, *mask_PS.shape)

    def pack(self, padded_PSD: Tensor) -> Tensor:
        """The real tokens (R, D)."""
        return padded_PSD.flatten(0, 1).index_select(0, self.places_R)

    def pad(self, packed_RD: Tensor) -> Tensor:
        """The texts (P, S, D) with zeros for padding."""
        padded = packed_RD.new_zeros(self.num_texts * self.length, packed_RD.shape[1])
        return padded.index_copy(0, self.places_R, packed_RD).unflatten(0, (self.num_texts, self.length))


class Projections(nn.Module):
    """The three linear layers of an attention, under BERT's names."""

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)


class ResidualOutput(nn.Module):
    """Linear layer, dropout, residual, norm: how each part of a BERT layer ends."""

    def __init__(self, inner: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        """Hidden states (..., D) of the part's inner states (..., inner) and what went into it."""
        return self.LayerNorm(self.dropout(self.dense(inner)) + residual)


class TextAttention(nn.Module):
    """Attention of texts to themselves or to contexts, with its residual and norm."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.heads, self.dropout = text.heads, text.dropout
        self.self = Projections(text.width, context_width)
        self.output = ResidualOutput(text.width, text.width, text.dropout)

    def project(self, tokens: Tensor, packing: Packing | None = None) -> KeysValues:
        """What tokens (V, N, D), or the real ones (R, D) of a packing, are attended by."""
        keys, values = self.self.key(tokens), self.self.value(tokens)
        if packing is not None:
            keys, values = packing.pad(keys), packing.pad(values)
        return KeysValues(self._heads(keys), self._heads(values))

    def forward(self, hidden: Tensor, shares: Sequence[Share], packing: Packing | None = None) -> Tensor:
        """The next states of texts (P, S, D), or of their real tokens (R, D), that attend to the shares in turn."""
        query = self.self.query(hidden)
        # Texts that all share one row need not be told apart.
        apart = packing is not None and not (len(shares) == 1 and len(shares[0].of.keys) == 1)
        if packing is not None and apart:
            query = packing.pad(query)
        if len(shares) == 1:
            attended = self._attend(query, shares[0])
        else:
            parts = query.split([share.texts for share in shares])
            attended = torch.cat([self._attend(part, share) for part, share in zip(parts, shares, strict=True)])
        if packing is not None and apart:
            attended = packing.pack(attended)
        return self.output(attended, hidden)

    def _attend(self, query: Tensor, share: Share) -> Tensor:
        """Texts of one row are one long text to it, so its keys and values are neither repeated nor read again."""
        keys, values = share.of
        assert share.texts % len(keys) == 0, f"{len(keys)} contexts do not share {share.texts} texts evenly"
        dropout = self.dropout if self.training else 0.0
        long = self._heads(query.reshape(len(keys), -1, query.shape[-1]))
        if dropout and not query.is_cuda:
            attended = DroppedAttention.apply(long, keys, values, share.mask, dropout)
        elif share.mask is None or not query.is_cuda:
            attended = F.scaled_dot_product_attention(long, keys, values, attn_mask=share.mask, dropout_p=dropout)
        else:
            # cuDNN's kernel, first choice on Hopper, is wrong for some lengths when there is a mask.
            with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
                attended = F.scaled_dot_product_attention(long, keys, values, attn_mask=share.mask, dropout_p=dropout)
        return attended.transpose(1, 2).reshape(query.shape)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
