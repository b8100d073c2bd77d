"""The text encoder and decoder: BLIP's mixed BERT, which also attends to video tokens if it is given any.

We do not use `transformers`' BlipTextModel, although it loads the same keys: it ignores the mask of the
cross-attention, materialises all attention scores, and projects the context again in every call. Tests compare the two.
Shapes: B batch, S text tokens, N context tokens, D width, H heads, K head width, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schema import TextConfig
from models.parts.bert_attention import NORM_EPS, KeysValues, Packing, ResidualOutput, Share, TextAttention

INITIAL_STD = 0.02


class Intermediate(nn.Module):
    """The widening half of the feed-forward layer."""

    def __init__(self, text: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(text.width, text.intermediate)

    def forward(self, hidden: Tensor) -> Tensor:
        """Widened states (..., intermediate)."""
        return F.gelu(self.dense(hidden))


class TextLayer(nn.Module):
    """Self-attention, attention to the context where there is one, feed-forward.

    Without a `context_width` the layer has no part that attends to a context.
    """

    crossattention: TextAttention

    def __init__(self, text: TextConfig, context_width: int | None) -> None:
        super().__init__()
        self.attention = TextAttention(text, text.width)
        if context_width is not None:
            self.crossattention = TextAttention(text, context_width)
        self.intermediate = Intermediate(text)
        self.output = ResidualOutput(text.intermediate, text.width, text.dropout)

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        context: Sequence[Share],
        past: KeysValues | None = None,
        packing: Packing | None = None,
        first_only: bool = False,
    ) -> tuple[Tensor, KeysValues]:
        """The next hidden states, and this layer's keys and values, appended to the `past`.

        `hidden` is (B, S, D), or (R, D) with a packing. `first_only` returns first tokens alone (B, 1, D).
        """
        own = self.attention.project(hidden, packing)
        if past is not None:
            own = KeysValues(*(torch.cat(pair, dim=2) for pair in zip(past, own, strict=True)))

        # All tokens are attended to, but only the first one of each text attends: no padding is left to skip.
        if first_only:
            hidden = hidden[:, :1] if packing is None else hidden[packing.first_P, None]
            packing = None

        hidden = self.attention(hidden, (Share(len(own.keys), own, mask),), packing)
        if context:
            hidden = self.crossattention(hidden, context, packing)
        return self.output(self.intermediate(hidden), hidden), own


class Embeddings(nn.Module):
    """Words and positions; no token types."""

    def __init__(self, text: TextConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(text.vocab_size, text.width, padding_idx=0)
        self.position_embeddings = nn.Embedding(text.max_positions, text.width)
        self.LayerNorm = nn.LayerNorm(text.width, eps=NORM_EPS)
        self.dropout = nn.Dropout(text.dropout)

    def forward(self, ids_BS: Tensor, first_position: int) -> Tensor:
        """Embeddings (B, S, D) of words, the first of them at `first_position`."""
        end = first_position + ids_BS.shape[1]
        if end > self.position_embeddings.num_embeddings:
            most = self.position_embeddings.num_embeddings
            raise ValueError(f"a text of {end} tokens is longer than model.text.max_positions {most}")
        positions = self.position_embeddings.weight[first_position:end]
        return self.dropout(self.LayerNorm(self.word_embeddings(ids_BS) + positions))


class Layers(nn.Module):
    """The stack, one level down as in BERT's names (`encoder.layer.0...`)."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TextLayer(text, context_width) for _ in range(text.depth))


class TextEncoder(nn.Module):
    """BERT with cross-attention in every layer. Alone it reads text; given a context it grounds the text in it."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(text)
        self.encoder = Layers(text, context_width)
        self.apply(initialise)

    def projections(self, context_VND: Tensor, about: Tensor | None = None) -> Iterator[KeysValues]:
        """Yield each layer's keys and values of contexts, projected when it is reached; `about` selects rows."""
        for layer in self.encoder.layer:
            projected = cast(TextLayer, layer).crossattention.project(context_VND)
            yield projected if about is None else projected.rows(about)

    def project(self, context_VND: Tensor) -> list[KeysValues]:
        """Keys and values for all layers at once, for contexts that are attended to more than once."""
        return list(self.projections(context_VND))

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None,
        context: Iterable[KeysValues] | None = None,
        context_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Hidden states (B, S, D) of ids (B, S); masks (B, S) and (V, N) are 1 where there is something to see.

        Each of V contexts serves B / V texts, in order.
        """
        hidden = self.embeddings(ids, 0)
        seen = _seen(ids, mask, 0, causal)
        for layer, shares in zip(self.encoder.layer, self._shares(len(ids), context, context_mask), strict=True):
            hidden, _ = layer(hidden, seen, shares)
        return hidden

    def step(
        self,
        ids: Tensor,
        mask: Tensor | None,
        context: list[KeysValues] | None,
        context_mask: Tensor | None,
        causal: bool,
        past: list[KeysValues] | None,
    ) -> tuple[Tensor, list[KeysValues]]:
        """Like `forward` for ids that follow a `past`; also returns the extended past. `mask` covers both."""
        before = 0 if past is None else past[0].keys.shape[2]
        hidden = self.embeddings(ids, before)
        seen = _seen(ids, mask, before, causal)
        extended = []
        for index, shares in enumerate(self._shares(len(ids), context, context_mask)):
            layer = self.encoder.layer[index]
            hidden, own = layer(hidden, seen, shares, None if past is None else past[index])
            extended.append(own)
        return hidden, extended

    def first_states(self, ids: Tensor, mask: Tensor, context: Iterable[Sequence[Share]] | None = None) -> Tensor:
        """The last hidden state (B, D) of each text's first token, which is all that contrast and matching read.

        Equals `forward` at that token, without the work that does not reach it: in the last layer the other tokens are
        only attended to, and evaluation skips padding. Training keeps the padding, since counting the real tokens makes
        the host wait for the device in every step.
        """
        packing = None if self.training else Packing.of(mask)
        hidden = self.embeddings(ids, 0)
        if packing is not None:
            hidden = packing.pack(hidden)

        seen, last = _seen(ids, mask, 0, causal=False), len(self.encoder.layer) - 1
        each = self._shares(len(ids), None, None) if context is None else context
        for index, (layer, shares) in enumerate(zip(self.encoder.layer, each, strict=True)):
            hidden, _ = layer(hidden, seen, shares, None, packing, first_only=index == last)
        return hidden.squeeze(1)

    def _shares(
        self, texts: int, context: Iterable[KeysValues] | None, context_mask: Tensor | None
    ) -> Iterator[tuple[Share, ...]]:
        seen = None if context_mask is None else context_mask[:, None, None, :].bool()
        if context is None:
            yield from [()] * len(self.encoder.layer)
        else:
            yield from ((Share(texts, projected, seen),) for projected in context)


def _seen(ids: Tensor, mask: Tensor | None, before: int, causal: bool) -> Tensor | None:
    """Which tokens each token may see, spreading to (B, H, S, before + S); None if all."""
    seen = None if mask is None else mask[:, None, None, :].bool()
    if causal and ids.shape[1] > 1:
        now = torch.ones(ids.shape[1], before + ids.shape[1], dtype=torch.bool, device=ids.device).tril(before)
        seen = now if seen is None else seen & now
    return seen


class Transform(nn.Module):
    """The layer between the last hidden state and the vocabulary."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, hidden_BSD: Tensor) -> Tensor:
        """States (B, S, D) that are compared with the word embeddings."""
        return self.LayerNorm(F.gelu(self.dense(hidden_BSD)))


class Predictions(nn.Module):
    """Logits over the vocabulary, with the word embeddings as weights."""

    def __init__(self, text: TextConfig, word_embeddings: nn.Embedding) -> None:
        super().__init__()
        self.transform = Transform(text.width)
        self.decoder = nn.Linear(text.width, text.vocab_size)
        self.decoder.weight = word_embeddings.weight
        self.bias = self.decoder.bias  # stored under both names by BERT

    def forward(self, hidden_BSD: Tensor) -> Tensor:
        """Logits (B, S, V)."""
        return self.decoder(self.transform(hidden_BSD))


class TextDecoder(nn.Module):
    """The same BERT with causal attention, and a head that predicts the next word."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.bert = TextEncoder(text, context_width)
        self.cls = nn.ModuleDict({"predictions": Predictions(text, self.bert.embeddings.word_embeddings)})
        self.cls.apply(initialise)

    def forward(
        self, ids: Tensor, mask: Tensor | None, context: list[KeysValues], context_mask: Tensor | None = None
    ) -> Tensor:
        """Logits (B, S, V) of the word that follows each of ids (B, S)."""
        return self.cls["predictions"](self.bert(ids, mask, context, context_mask, causal=True))

    def step(
        self,
        ids: Tensor,
        context: list[KeysValues],
        context_mask: Tensor | None,
        past: list[KeysValues] | None,
    ) -> tuple[Tensor, list[KeysValues]]:
        """Logits (B, V) of the word that follows `past` and ids (B, S), and the new past."""
        hidden, past = self.bert.step(ids, None, context, context_mask, causal=True, past=past)
        return self.cls["predictions"](hidden[:, -1]), past


def tie_encoder_to_decoder(encoder: TextEncoder, decoder: TextDecoder) -> None:
    """Share everything but self-attention, as in pre-training: embeddings, cross-attention and feed-forward layers."""
    encoder.embeddings = decoder.bert.embeddings
    for own, shared in zip(encoder.encoder.layer, decoder.bert.encoder.layer, strict=True):
        own.crossattention, own.intermediate, own.output = shared.crossattention, shared.intermediate, shared.output


def initialise(module: nn.Module) -> None:
    """Draw fresh weights as BERT does; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])
