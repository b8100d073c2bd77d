"""The text towers as BLIP writes them, for comparison: all scores written out, every context projected in every call.

Parameters are named as in `models.parts.bert`, so weights of the one load into the other and
`tie_encoder_to_decoder` ties
both. Shapes: B batch, S text tokens, N context tokens, D width, H heads, K head width, V vocabulary.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schema import TextConfig

NORM_EPS = 1e-12
HIDDEN_SCORE = -10000.0


class NaiveAttention(nn.Module):
    """Attention to itself or a context with its residual and norm."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.heads = text.heads
        linears = {"query": text.width, "key": context_width, "value": context_width}
        self.self = nn.ModuleDict({name: nn.Linear(width, text.width) for name, width in linears.items()})
        self.output = NaiveOutput(text.width, text)
        self.dropout = nn.Dropout(text.dropout)

    def forward(self, hidden_BSD: Tensor, context_BND: Tensor, bias: Tensor | float) -> Tensor:
        """`bias` is added to the scores (B, H, S, N)."""
        sources = {"query": hidden_BSD, "key": context_BND, "value": context_BND}
        query, key, value = (
            rearrange(self.self[name](source), "B N (H K) -> B H N K", H=self.heads) for name, source in sources.items()
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        attended = self.dropout((scores + bias).softmax(dim=-1)) @ value
        return self.output(rearrange(attended, "B H S K -> B S (H K)"), hidden_BSD)


class NaiveOutput(nn.Module):
    """Linear layer, dropout, residual, norm."""

    def __init__(self, inner: int, text: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, text.width)
        self.LayerNorm = nn.LayerNorm(text.width, eps=NORM_EPS)
        self.dropout = nn.Dropout(text.dropout)

    def forward(self, inner_BSD: Tensor, residual_BSD: Tensor) -> Tensor:
        """The part's inner states and what went into it."""
        return self.LayerNorm(self.dropout(self.dense(inner_BSD)) + residual_BSD)


class NaiveLayer(nn.Module):
    """Self-attention, attention to the context where there is one, feed-forward."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.attention = NaiveAttention(text, text.width)
        self.crossattention = NaiveAttention(text, context_width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(text.width, text.intermediate)})
        self.output = NaiveOutput(text.intermediate, text)

    def forward(self, hidden_BSD: Tensor, bias: Tensor, context_BND: Tensor | None) -> Tensor:
        """The next hidden states."""
        hidden = self.attention(hidden_BSD, hidden_BSD, bias)
        if context_BND is not None:
            hidden = self.crossattention(hidden, context_BND, 0.0)  # the reference adds a mask of zeros, too
        return self.output(F.gelu(self.intermediate["dense"](hidden)), hidden)


class NaiveText(nn.Module):
    """`models.parts.bert.TextEncoder` in plain lines."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(text.vocab_size, text.width, padding_idx=0),
                "position_embeddings": nn.Embedding(text.max_positions, text.width),
                "LayerNorm": nn.LayerNorm(text.width, eps=NORM_EPS),
            }
        )
        layers = nn.ModuleList(NaiveLayer(text, context_width) for _ in range(text.depth))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.dropout = nn.Dropout(text.dropout)

    def forward(self, ids: Tensor, mask: Tensor, context_tokens: Tensor | None = None, causal: bool = False) -> Tensor:
        """Hidden states (B, S, D) of ids (B, S); the mask (B, S) is 1 where there is a word."""
        words = self.embeddings["word_embeddings"](ids)
        places = self.embeddings["position_embeddings"](torch.arange(ids.shape[1], device=ids.device))
        hidden = self.dropout(self.embeddings["LayerNorm"](words + places))
        seen = mask[:, None, None, :].to(hidden.dtype)
        if causal:
            seen = seen * hidden.new_ones(2 * ids.shape[1:]).tril()
        bias = (1.0 - seen) * HIDDEN_SCORE
        layers: Any = self.encoder["layer"]
        for layer in layers:
            hidden = layer(hidden, bias, context_tokens)
        return hidden


class NaiveDecoder(nn.Module):
    """`models.parts.bert.TextDecoder` in plain lines."""

    def __init__(self, text: TextConfig, context_width: int) -> None:
        super().__init__()
        self.bert = NaiveText(text, context_width)
        transform = {
            "dense": nn.Linear(text.width, text.width),
            "LayerNorm": nn.LayerNorm(text.width, eps=NORM_EPS),
        }
        predictions: Any = nn.ModuleDict(
            {"transform": nn.ModuleDict(transform), "decoder": nn.Linear(text.width, text.vocab_size)}
        )
        predictions["decoder"].weight = self.bert.embeddings["word_embeddings"].weight
        predictions.register_parameter("bias", predictions["decoder"].bias)
        self.cls = nn.ModuleDict({"predictions": predictions})

    def forward(self, ids: Tensor, mask: Tensor, context_tokens: Tensor) -> Tensor:
        """Logits (B, S, V) of the word that follows each of ids (B, S)."""
        hidden = self.bert(ids, mask, context_tokens, causal=True)
        predictions: Any = self.cls["predictions"]
        transform = predictions["transform"]
        return predictions["decoder"](transform["LayerNorm"](F.gelu(transform["dense"](hidden))))
