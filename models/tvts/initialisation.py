"""Fresh blocks of TVTSv2's video tower: CLIP's scales in space, and attention over time that adds nothing at first."""

from collections.abc import Iterable

from torch import nn

from models.parts.clip.blocks import ClipMlp, initialise
from models.tvts.blocks import TvtsBlock


def initialise_blocks(blocks: nn.ModuleList) -> None:
    """Draw fresh blocks as the reference does; the model starts as CLIP applied to each frame.

    Queries and keys of attention over time stay 0 for ever: the gradient of a query is a sum of keys, and that of a key
    a sum of queries. All that is learned of it is a mean over frames. `start_from_projections` is the way out.
    """
    for block in _each(blocks):
        in_space, in_time, mlp = block.attn, block.timeattn, block.mlp
        assert isinstance(in_space.qkv, nn.Linear) and isinstance(in_space.proj, nn.Linear)
        assert isinstance(in_time.qkv, nn.Linear) and isinstance(in_time.proj, nn.Linear)
        assert isinstance(mlp, ClipMlp)

        initialise((in_space.qkv.weight, in_space.qkv.bias), in_space.proj, mlp, len(blocks))
        for zeroed in (in_time.qkv.weight, in_time.qkv.bias, in_time.proj.bias):
            nn.init.zeros_(zeroed)
        # Zero queries, keys and values already give 0. If this were zero too, no gradient would flow.
        nn.init.ones_(in_time.proj.weight)


def start_from_projections(blocks: nn.ModuleList) -> None:
    """Let attention over time add nothing by its projection alone, so that queries and keys can learn. Ours."""
    for block in _each(blocks):
        attention = block.timeattn
        assert isinstance(attention.qkv, nn.Linear) and isinstance(attention.proj, nn.Linear)
        nn.init.normal_(attention.qkv.weight, std=attention.qkv.in_features**-0.5)
        nn.init.zeros_(attention.proj.weight)


def _each(blocks: nn.ModuleList) -> Iterable[TvtsBlock]:
    for block in blocks:
        assert isinstance(block, TvtsBlock)
        yield block
