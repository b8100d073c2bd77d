"""The text encoder and decoder: BLIP's mixed BERT, which also attends to video tokens where it is given any.

Own code over `transformers`' BlipTextModel, which loads the same keys: that one ignores the mask of the
cross-attention, writes out all attention scores, and projects the context again in every call. Tested equal to it.
Shapes: B batch, S text tokens, N context tokens, D width, H heads, K head width, V vocabulary.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schema import TextConfig

NORM_EPS = 1e-12
INITIAL_STD = 0.02


class KeysValues(NamedTuple):
    """Keys and values (B, H, N, K) of one layer; B may be 1 for one context that all texts share."""

    keys: Tensor
    values: Tensor


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

    def forward(self, inner_BSD: Tensor, residual_BSD: Tensor) -> Tensor:
        """Hidden states (B, S, D) of the part's inner states (B, S, inner) and what went into it."""
        return self.LayerNorm(self.dropout(self.dense(inner_BSD)) + residual_BSD)


class TextAttention(nn.Module):
    """Attention of text to itself or to a context, with its residual and norm."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.heads, self.dropout = text.heads, text.dropout
        self.self = Projections(text.width, context_width)
        self.output = ResidualOutput(text.width, text.width, text.dropout)

    def project(self, context_BND: Tensor) -> KeysValues:
        """What a context is attended by."""
        return KeysValues(self._heads(self.self.key(context_BND)), self._heads(self.self.value(context_BND)))

    def forward(self, hidden_BSD: Tensor, context: KeysValues, mask: Tensor | None) -> Tensor:
        """`mask` is bool, True where a key may be seen, of a shape that spreads to (B, H, S, N)."""
        query = self._heads(self.self.query(hidden_BSD))
        keys, values = (part.expand(len(query), -1, -1, -1) for part in context)
        attended = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.output(attended.transpose(1, 2).flatten(2), hidden_BSD)

    def _heads(self, projected_BSD: Tensor) -> Tensor:
        return projected_BSD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Intermediate(nn.Module):
    """The widening half of the feed-forward layer."""

    def __init__(self, text: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(text.width, text.intermediate)

    def forward(self, hidden_BSD: Tensor) -> Tensor:
        """Widened states (B, S, intermediate)."""
        return F.gelu(self.dense(hidden_BSD))


class TextLayer(nn.Module):
    """Self-attention, attention to the context where there is one, feed-forward."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.attention = TextAttention(text, text.width)
        self.crossattention = TextAttention(text, context_width)
        self.intermediate = Intermediate(text)
        self.output = ResidualOutput(text.intermediate, text.width, text.dropout)

    def forward(
        self,
        hidden_BSD: Tensor,
        mask: Tensor | None,
        context: KeysValues | None,
        context_mask: Tensor | None,
        past: KeysValues | None,
    ) -> tuple[Tensor, KeysValues]:
        """The next hidden states, and the own keys and values with those of the `past` before them."""
        own = self.attention.project(hidden_BSD)
        if past is not None:
            own = KeysValues(*(torch.cat(pair, dim=2) for pair in zip(past, own, strict=True)))
        hidden = self.attention(hidden_BSD, own, mask)
        if context is not None:
            hidden = self.crossattention(hidden, context, context_mask)
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
        """Embeddings (B, S, D) of words of which the first stands at `first_position`."""
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
        self.apply(_initialise)

    def project(self, context_BND: Tensor) -> list[KeysValues]:
        """Keys and values of a context for each layer, once for all the texts that will attend to it."""
        return [cast(TextLayer, layer).crossattention.project(context_BND) for layer in self.encoder.layer]

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None,
        context: list[KeysValues] | None = None,
        context_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Hidden states (B, S, D) of ids (B, S); masks (B, S) and (B, N) are 1 where there is something to see."""
        return self.step(ids, mask, context, context_mask, causal, None)[0]

    def step(
        self,
        ids: Tensor,
        mask: Tensor | None,
        context: list[KeysValues] | None,
        context_mask: Tensor | None,
        causal: bool,
        past: list[KeysValues] | None,
    ) -> tuple[Tensor, list[KeysValues]]:
        """The same for ids that follow a `past`, and the past that the next ids follow; `mask` covers both."""
        before = 0 if past is None else past[0].keys.shape[2]
        hidden = self.embeddings(ids, before)
        seen = None if mask is None else mask[:, None, None, :].bool()
        if causal and ids.shape[1] > 1:
            now = torch.ones(ids.shape[1], before + ids.shape[1], dtype=torch.bool, device=ids.device).tril(before)
            seen = now if seen is None else seen & now
        seen_context = None if context_mask is None else context_mask[:, None, None, :].bool()
        extended = []
        for index, layer in enumerate(self.encoder.layer):
            hidden, own = layer(
                hidden,
                seen,
                None if context is None else context[index],
                seen_context,
                None if past is None else past[index],
            )
            extended.append(own)
        return hidden, extended


class Transform(nn.Module):
    """What stands between the last hidden state and the vocabulary."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, hidden_BSD: Tensor) -> Tensor:
        """States (B, S, D) to compare with the word embeddings."""
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
    """The same BERT read from left to right, and a head that predicts the next word."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.bert = TextEncoder(text, context_width)
        self.cls = nn.ModuleDict({"predictions": Predictions(text, self.bert.embeddings.word_embeddings)})
        self.cls.apply(_initialise)

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


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])
