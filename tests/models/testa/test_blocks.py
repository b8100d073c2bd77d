"""Proportional attention: a token of size n counts as n equal tokens; and attention against its definition."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

import models.parts.attention
from models.parts.aggregation import TokenAggregator
from models.parts.attention import Attention
from models.testa.blocks import DividedBlock, JointBlock
from tests.models.tiny import HEADS, WIDTH, randomise


def idle(axis: str) -> TokenAggregator:
    return TokenAggregator("none", axis, 0)


def divided_block(proportional: bool) -> DividedBlock:
    block = DividedBlock(WIDTH, HEADS, 4.0, 0.0, idle("time"), idle("space"), proportional, None)
    randomise(block)
    return block


@pytest.mark.parametrize("gradient", [False, True], ids=["by_head", "fused"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("needs", ["nothing", "key", "probabilities"])
def test_attention_and_what_it_hands_out_by_hand(
    needs: str, batch: int, groups: int, biased: bool, gradient: bool
) -> None:
    attention = Attention(WIDTH, HEADS)
    randomise(attention)
    tokens, bias = torch.randn(batch, 6, groups, WIDTH), torch.rand(batch, groups, 6) if biased else None
    with torch.set_grad_enabled(gradient):
        attended = attention(tokens, bias, needs)
    for row, group in product(range(batch), range(groups)):
        own_bias = torch.zeros(6) if bias is None else bias[row, group]
        context, key, received = attention_by_hand(attention, tokens[row, :, group], own_bias)
        torch.testing.assert_close(attended.context[row, :, group], context, atol=1e-5, rtol=1e-5)
        if attended.key is not None:
            torch.testing.assert_close(attended.key[row, group], key)
        if attended.importance is not None:
            torch.testing.assert_close(attended.importance[row, group], received, atol=1e-5, rtol=1e-5)
    assert (attended.key is None) == (needs == "nothing")
    assert (attended.importance is None) == (needs != "probabilities")


def attention_by_hand(attention: Attention, tokens: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Context (N, D), mean keys (N, K) and what each of tokens (N, D) receives (N,), from the definition."""
    query, key, value = attention.qkv(tokens).split(WIDTH, dim=-1)
    head, contexts, received = WIDTH // HEADS, [], torch.zeros(len(tokens))
    for start in range(0, WIDTH, head):
        part = slice(start, start + head)
        scores = query[:, part] @ key[:, part].mT / head**0.5 + bias
        probabilities = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        contexts.append(probabilities @ value[:, part])
        received += (probabilities * (1 - torch.eye(len(tokens)))).sum(dim=0) / HEADS
    return torch.cat(contexts, dim=-1), key.unflatten(-1, (HEADS, head)).mean(dim=1), received


@pytest.mark.parametrize("groups", [1, 3])
@torch.no_grad()
def test_a_head_at_a_time_is_taken_only_where_it_is_faster(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, plain = [], models.parts.attention._attend_by_head
    monkeypatch.setattr(models.parts.attention, "_attend_by_head", lambda *parts: taken.append(1) or plain(*parts))
    attention, tokens = Attention(WIDTH, HEADS), torch.randn(2, 20, groups, WIDTH)
    expected = attention(tokens).context
    assert taken == [1]
    with torch.enable_grad():
        torch.testing.assert_close(attention(tokens).context, expected)
    attention(tokens, torch.zeros(2, groups, 20))
    attention.bfloat16()(tokens.bfloat16())
    attention.float()(torch.randn(1, models.parts.attention.MOST_TOKENS_BY_HEAD + 1, groups, WIDTH))
    assert taken == [1]


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("needs", ["nothing", "probabilities"])
def test_no_gradient_passes_through_the_key_bias(needs: str, groups: int) -> None:
    attention, bias = Attention(WIDTH, HEADS), torch.rand(2, groups, 5, requires_grad=True)
    tokens = torch.randn(2, 5, groups, WIDTH, requires_grad=True)
    attention(tokens, bias, needs).context.sum().backward()
    assert bias.grad is None and tokens.grad.abs().sum() > 0


@pytest.mark.parametrize("frames", [1, 4])
def test_two_linear_layers_in_a_row_are_one_of_the_same_output_and_gradient(frames: int) -> None:
    """Four frames of 12 patches are more tokens than WIDTH, so that they are multiplied first; one frame is fewer."""
    block = divided_block(proportional=False)
    context = torch.randn(2, frames, 12, WIDTH, requires_grad=True)
    assert block.folds(frames, 12) == (frames == 4)
    weights = [*block.temporal_attn.proj.parameters(), *block.temporal_fc.parameters()]
    one = block.temporal_update(context, block.folds(*context.shape[1:3]))
    two = block.temporal_fc(block.temporal_attn.proj(context))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    direction = torch.randn_like(one)
    gradients = [torch.autograd.grad(update, (context, *weights), direction) for update in (one, two)]
    for own, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_joint_block_counts_a_token_as_often_as_its_size() -> None:
    size = torch.tensor([1, 3, 2, 1])
    cls, tokens = torch.randn(1, 1, WIDTH), torch.randn(1, 4, WIDTH)
    block = JointBlock(WIDTH, HEADS, 4.0, 0.0, idle("joint"), proportional_attention=True)
    randomise(block)
    found_cls, found, _, _ = block(cls, tokens, size[None].float(), None)
    repeated_cls, repeated, _, _ = block(cls, tokens.repeat_interleave(size, dim=1), torch.ones(1, 7), None)
    torch.testing.assert_close(found_cls, repeated_cls, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.repeat_interleave(size, dim=1), repeated, atol=1e-5, rtol=1e-5)
    block.proportional_attention = False
    assert not torch.allclose(block(cls, tokens, size[None].float(), None)[0], repeated_cls, atol=1e-3)


@pytest.mark.parametrize("axis", ["time", "space"])
@torch.no_grad()
def test_divided_block_counts_a_token_as_often_as_its_size(axis: str) -> None:
    block = divided_block(proportional=True)
    if axis == "time":  # sizes of frames weigh against the class token in space, where frames are apart
        nn.init.zeros_(block.attn.proj.weight)
    along, count = (1, 5) if axis == "time" else (2, 4)
    times = torch.tensor([1, 3, 2, 1, 1][:count])
    cls, tokens = torch.randn(2, 1, WIDTH), torch.randn(2, 5, 4, WIDTH)
    size = (times[:, None] if axis == "time" else times[None]).expand(5, 4).expand(2, 5, 4).float()
    longer = tokens.repeat_interleave(times, dim=along)
    found_cls, found, _, _ = block(cls, tokens, size, None)
    repeated_cls, repeated, _, _ = block(cls, longer, torch.ones(longer.shape[:3]), None)
    torch.testing.assert_close(found_cls, repeated_cls, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.repeat_interleave(times, dim=along), repeated, atol=1e-5, rtol=1e-5)
    block.proportional_attention = False
    assert not torch.allclose(block(cls, tokens, size, None)[1], found, atol=1e-3)


@torch.no_grad()
def test_the_class_token_takes_the_mean_of_its_updates_in_each_frame() -> None:
    block = divided_block(proportional=False)
    for layer in (block.temporal_fc, block.mlp.fc2):  # leaves attention within frames alone
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    cls, tokens = torch.randn(1, 1, WIDTH), torch.randn(1, 3, 4, WIDTH)
    each = [block(cls, tokens[:, frame : frame + 1], torch.ones(1, 1, 4), None)[0] for frame in range(3)]
    found = block(cls, tokens, torch.ones(1, 3, 4), None)[0]
    torch.testing.assert_close(found, torch.stack(each).mean(dim=0), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(each[0], each[1], atol=1e-3)
