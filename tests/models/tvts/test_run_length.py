"""TVTSv2's tower over the patches that change: in batches as alone, and against masks over the whole grid."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from models.tvts.video_tower import VideoTower
from tests.models.runs import FRAMES, PATCHES, clips_of_runs
from tests.models.tvts.tiny import make_tower

WAYS = {
    "threshold": {},
    "weighed": {"weigh_lengths": True},
    "share": {"keep": 0.5},
    "random": {"keep": 0.5, "kept_by": "random"},
}


def tower(way: str) -> VideoTower:
    return make_tower(reducer="run_length", **WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_equals_its_clips_alone(way: str) -> None:
    model, video = tower(way), clips_of_runs().requires_grad_()
    together = model(video, return_origins=True)
    assert (together.mask is None) == ("keep" in WAYS[way])
    found = torch.autograd.grad(together.tokens.sin().sum() + together.embedding.sum(), [video, *model.parameters()])
    expected: list[Tensor] = []
    for row in range(len(video)):
        one = video[row : row + 1].detach().requires_grad_()
        alone = model(one, return_origins=True)
        count = alone.tokens.shape[1]
        assert_close(together.tokens[row, :count], alone.tokens[0], atol=1e-5, rtol=1e-5)
        assert_close(together.embedding[row], alone.embedding[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(together.size[row, : count - 1], alone.size[0])
        assert torch.equal(together.origins[row], alone.origins[0])
        assert not together.tokens[row, count:].any()
        own = torch.autograd.grad(alone.tokens.sin().sum() + alone.embedding.sum(), [one, *model.parameters()])
        own = (F.pad(own[0], (0, 0) * 4 + (row, len(video) - 1 - row)), *own[1:])
        expected = [a + b for a, b in zip(expected, own, strict=True)] if expected else list(own)
    for own, other in zip(found, expected, strict=True):
        scale = other.abs().max().clamp(min=1.0)
        assert_close(own / scale, other / scale, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert_close(model(video).tokens, together.tokens.detach(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("way", ["threshold", "weighed"])
def test_it_equals_masks_over_the_whole_grid(way: str) -> None:
    model, video = tower(way), clips_of_runs(batch=1)
    kept = model.kept_patches(video)
    lengths = torch.zeros(1, FRAMES * PATCHES).scatter(1, kept.keep, kept.lengths.float())[0]
    size = F.pad(lengths if way == "weighed" else (lengths > 0).float(), (1, 0), value=1.0)
    place, time = torch.arange(PATCHES).repeat(FRAMES), torch.arange(FRAMES).repeat_interleave(PATCHES)
    nobody = torch.tensor([-1])

    tokens = model._embed(video, None)
    for block in model.blocks:
        u = tokens + hidden_attention(block.timeattn, block.ln_3(tokens), torch.cat([nobody, place]), size)
        y = tokens + hidden_attention(block.attn, block.ln_1(u), torch.cat([nobody, time]), size)
        tokens = y + block.mlp(block.ln_2(y))
    found = model(video)
    expected = torch.cat([tokens[:, :1], tokens[:, 1:][:, kept.keep[0]]], dim=1)
    assert_close(found.tokens, expected, atol=1e-5, rtol=1e-5)
    assert_close(found.embedding, model.ln_post(tokens[:, 0]) @ model.proj, atol=1e-5, rtol=1e-5)


def hidden_attention(attention: torch.nn.Module, tokens_BND: Tensor, group_N: Tensor, size_N: Tensor) -> Tensor:
    """Plain attention over all tokens: token 0 sees all, others their group and token 0; keys of size 0 are hidden."""
    query, key, value = (
        part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in attention.qkv(tokens_BND).chunk(3, -1)
    )
    allowed = group_N[:, None] == group_N[None]
    allowed[0], allowed[:, 0] = True, True
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + size_N.log()
    probabilities = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
    return attention.proj((probabilities @ value).transpose(1, 2).flatten(2))


def test_recomputation_and_steps() -> None:
    model, video = tower("threshold").train(), clips_of_runs()
    plain = model(video).tokens
    model.recompute = True
    assert torch.equal(model(video).tokens, plain)

    steps: list = []
    model.eval()(video[:1], steps=steps)
    assert [len(of_block) for of_block in steps] == [1, 0, 0]


@torch.no_grad()
def test_what_does_not_go_together_is_refused() -> None:
    model, video = tower("threshold"), clips_of_runs()
    with pytest.raises(ValueError, match="neither with hidden patches nor"):
        model(video, torch.zeros(3, 4, dtype=torch.int64))
    model.working_memory = 1e-6
    with pytest.raises(ValueError, match="neither with hidden patches nor"):
        model(video)


@torch.no_grad()
@pytest.mark.soak
def test_compiled_equals_eager() -> None:
    model, video = tower("threshold"), clips_of_runs()
    eager = model(video)
    model.compile(fullgraph=True, dynamic=False, backend="eager")
    compiled = model(video, kept=model.kept_patches(video))
    assert_close(compiled.embedding, eager.embedding, atol=1e-5, rtol=1e-5)
