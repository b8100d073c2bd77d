"""Attention of texts to themselves and to shared contexts, over padded texts or over real tokens alone.

Shapes: P texts, S tokens, R real tokens of all texts, V contexts, N context tokens, D width, H heads, K head width.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from configs.schema import TextConfig
from models.parts.dropped_attention import DroppedAttention

NORM_EPS = 1e-12
CHOSEN_AT_ONCE = {"cpu": 2**11, "cuda": 2**16}
"""Where each text attends to tokens of its own choice, so many of them are copied together for a few texts."""


class KeysValues(NamedTuple):
    """Keys and values (V, H, N, K) of one layer."""

    keys: Tensor
    values: Tensor

    def rows(self, about_P: Tensor) -> "KeysValues":
        """Copies of the rows `about_P`."""
        # Not `keys[about_P]`: on several CPU threads its gradient adds up rows in no fixed order.
        return KeysValues(self.keys.index_select(0, about_P), self.values.index_select(0, about_P))


class Memory:
    """What texts attend to in videos: keys and values for each layer of the text tower.

    Args:
        layers: a list, or an iterator that makes each layer when it is reached and can be used once.
        mask: (V, N) bool, False for padding of videos that keep fewer tokens than others; None if there is none.
        places_PM: the tokens of its video that each text attends to; None for all of them.
    """

    def __init__(
        self, layers: Iterable[KeysValues], mask: Tensor | None = None, places_PM: Tensor | None = None
    ) -> None:
        self.layers, self.mask, self.places_PM = layers, mask, places_PM

    def rows(self, about_P: Tensor) -> "Memory":
        """The memory of the videos `about_P`; a layer is copied when it is reached."""
        assert self.places_PM is None, "take the rows first, then choose"
        mask = None if self.mask is None else self.mask.index_select(0, about_P)
        return Memory((layer.rows(about_P) for layer in self.layers), mask)

    def chosen(self, places_PM: Tensor) -> "Memory":
        """The same videos, of which text p attends to the M tokens `places_PM[p]` alone."""
        return Memory(self.layers, self.mask, places_PM)


class Share(NamedTuple):
    """What `texts` consecutive texts attend to: each row of `of` serves the same number of them, in order.

    `mask` is bool, True where a key may be seen, of a shape that broadcasts to (V, H, texts / V * S, N). `places_PM`
    are the M keys of its row that each text attends to, None for all of them; the mask is then (V, 1, 1, N).
    """

    texts: int
    of: KeysValues
    mask: Tensor | None = None
    places_PM: Tensor | None = None


def shares_of(groups: Sequence[tuple[int, Memory]]) -> Iterator[list[Share]]:
    """For each layer the shares of consecutive groups of texts: how many texts, and the memory of their videos."""
    masks = [None if memory.mask is None else memory.mask[:, None, None, :] for _, memory in groups]
    for of_layer in zip(*(memory.layers for _, memory in groups), strict=True):
        yield [
            Share(texts, projected, mask, memory.places_PM)
            for (texts, memory), projected, mask in zip(groups, of_layer, masks, strict=True)
        ]


class Packing(NamedTuple):
    """Where the real tokens of padded texts (P, S) are, to skip work on padding.

    Attributes:
        places_R: rows of the flattened texts that are real, in order; the last may be repeated.
        first_P: for each text, the position of its first token among these.
    """

    places_R: Tensor
    first_P: Tensor
    num_texts: int
    length: int

    @classmethod
    def of(cls, mask_PS: Tensor) -> "Packing | None":
        """Find the real tokens; None if there is no padding. Waits for the device, so do not use it in training steps.

        Without gradient the last place is repeated, which adds up to a sixteenth more rows. Each distinct number of
        rows costs a kernel and memory, so rounding keeps their number low.
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
        """Keys and values of tokens (V, N, D), or of the real tokens (R, D) of a packing."""
        keys, values = self.self.key(tokens), self.self.value(tokens)
        if packing is not None:
            keys, values = packing.pad(keys), packing.pad(values)
        return KeysValues(self._heads(keys), self._heads(values))

    def forward(self, hidden: Tensor, shares: Sequence[Share], packing: Packing | None = None) -> Tensor:
        """The next states of texts (P, S, D), or of their real tokens (R, D), that attend to the shares in turn."""
        query = self.self.query(hidden)

        # Attention needs to know which token belongs to which text, so it takes padded texts, unless all share one row.
        together = len(shares) == 1 and len(shares[0].of.keys) == 1 and shares[0].places_PM is None
        apart = packing is not None and not together
        if packing is not None and apart:
            query = packing.pad(query)

        # Each share serves the next `texts` texts.
        if len(shares) == 1:
            attended = self._attend(query, shares[0])
        else:
            parts = query.split([share.texts for share in shares])
            attended = torch.cat([self._attend(part, share) for part, share in zip(parts, shares, strict=True)])

        if packing is not None and apart:
            attended = packing.pack(attended)
        return self.output(attended, hidden)

    def _attend(self, query: Tensor, share: Share) -> Tensor:
        """Join the texts of a row into one long text, so that its keys and values are neither copied nor read twice."""
        keys, values = share.of
        assert share.texts % len(keys) == 0, f"{len(keys)} contexts do not share {share.texts} texts evenly"
        if share.places_PM is not None:
            return self._attend_to_chosen(query, share, share.places_PM)
        dropout = self.dropout if self.training else 0.0
        long = self._heads(query.reshape(len(keys), -1, query.shape[-1]))

        # On a CPU, torch's own attention with dropout keeps three floats a score for the backward pass.
        if dropout and not query.is_cuda:
            attended = DroppedAttention.apply(long, keys, values, share.mask, dropout)
        elif share.mask is None or not query.is_cuda:
            attended = F.scaled_dot_product_attention(long, keys, values, attn_mask=share.mask, dropout_p=dropout)
        else:
            # cuDNN's kernel, first choice on Hopper, is wrong for some lengths when there is a mask.
            with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
                attended = F.scaled_dot_product_attention(long, keys, values, attn_mask=share.mask, dropout_p=dropout)

        return attended.transpose(1, 2).reshape(query.shape)

    def _attend_to_chosen(self, query_PSD: Tensor, share: Share, places_PM: Tensor) -> Tensor:
        """Copy the keys and values that each text chose, for a few texts at a time, and let it attend to them alone."""
        num_videos, num_tokens = share.of.keys.shape[0], share.of.keys.shape[2]
        videos_P = torch.arange(num_videos, device=places_PM.device).repeat_interleave(share.texts // num_videos)
        places_PM = places_PM + num_tokens * videos_P.unsqueeze(1)

        # All heads of a token lie together, so that a token is one row to copy.
        rows = [projected.transpose(1, 2).flatten(0, 1).flatten(1) for projected in share.of]
        mask = None if share.mask is None else share.mask.flatten()

        at_once = max(1, CHOSEN_AT_ONCE[query_PSD.device.type] // max(1, places_PM.shape[1]))
        attended = []
        for query, places in zip(query_PSD.split(at_once), places_PM.split(at_once), strict=True):
            of = [self._heads(row.index_select(0, places.flatten()).unflatten(0, places.shape)) for row in rows]
            seen = None if mask is None else mask[places][:, None, None, :]
            attended.append(self._attend(query, Share(len(query), KeysValues(*of), seen)))
        return torch.cat(attended)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
