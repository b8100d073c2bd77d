"""CLIP's text tower: a causal transformer whose feature is taken at the end token.

Radford et al., ICML 2021. Parameter names are OpenAI's. Shapes: P texts, S tokens, D width, E shared width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.parts.clip.blocks import NORM_EPS, ClipTransformer
from models.parts.clip.sizes import TextTowerSizes


class TextTowerFeatures(NamedTuple):
    """What the tower makes of texts.

    Attributes:
        states: (P, S, D) after `ln_final`, before the projection.
        embedding: (P, E) projected state of the end token, not normalised.
    """

    states: Tensor
    embedding: Tensor


class TextTower(nn.Module):
    """Encode token ids (P, S) of at most `context` tokens.

    The end token has the highest id of the vocabulary, which is how it is found. Attention is causal, so what follows
    it changes nothing: texts may be padded with any id, to any length.
    """

    def __init__(self, sizes: TextTowerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.token_embedding = nn.Embedding(sizes.vocab_size, sizes.width)
        self.positional_embedding = nn.Parameter(torch.empty(sizes.context, sizes.width))
        self.transformer = ClipTransformer(sizes.width, sizes.depth, sizes.heads, sizes.activation)
        self.ln_final = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        self.text_projection = nn.Parameter(torch.empty(sizes.width, sizes.embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=sizes.width**-0.5)

    def forward(self, ids_PS: Tensor) -> TextTowerFeatures:
        """Features of texts; ValueError if they are longer than the context."""
        states = self.ln_final(self.transformer(self.embed(ids_PS), causal=True))
        at_end = states_at(states, ids_PS.argmax(dim=-1))
        return TextTowerFeatures(states, at_end @ self.text_projection)

    def embed(self, ids_PS: Tensor) -> Tensor:
        """Tokens (P, S, D) that go into the first block."""
        length = ids_PS.shape[1]
        if length > self.sizes.context:
            raise ValueError(f"texts of {length} tokens; this tower reads at most {self.sizes.context}")
        return self.token_embedding(ids_PS) + self.positional_embedding[:length]

    def freeze_first_blocks(self, count: int) -> None:
        """Freeze the first `count` blocks; the rest of the tower is trained."""
        if not 0 <= count <= self.sizes.depth:
            raise ValueError(f"cannot freeze {count} of the text tower's {self.sizes.depth} blocks")
        for block in self.transformer.resblocks[:count]:
            block.requires_grad_(False)


def states_at(states_PSD: Tensor, slot_P: Tensor) -> Tensor:
    """The state (P, D) of one slot of each text."""
    # Not `states[rows, slots]`: tests keep its gradient, which threads may add up in any order, out of every loss.
    first_P = torch.arange(len(states_PSD), device=states_PSD.device) * states_PSD.shape[1]
    return states_PSD.flatten(0, 1).index_select(0, first_P + slot_P)
