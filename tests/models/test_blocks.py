"""Proportional attention: a token of size n counts as n equal tokens; and attention against its definition."""

import pytest
import torch
from torch import nn

from models.aggregation import TokenAggregator
from models.attention import Attention
from models.blocks import DividedBlock, JointBlock, resize_in_time
from tests.models.tiny import HEADS, WIDTH, randomise


def idle(axis: str) -> TokenAggregator:
    return TokenAggregator("none", axis, 0)


def divided_block(proportional: bool) -> DividedBlock:
    block = DividedBlock(WIDTH, HEADS, 4.0, 0.0, idle("time"), idle("space"), proportional, None)
    randomise(block)
    return block


@pytest.mark.parametrize("needs", ["nothing", "key", "probabilities"])
@torch.no_grad()
def test_attention_and_what_it_hands_out_by_hand(needs: str) -> None:
    attention = Attention(WIDTH, HEADS)
    randomise(attention)
    tokens, bias = torch.randn(3, 6, WIDTH), torch.rand(3, 6)
    attended = attention(tokens, bias, needs)
    query, key, value = attention.qkv(tokens).split(WIDTH, dim=-1)
    head, contexts, received = WIDTH // HEADS, [], torch.zeros(3, 6)
    for start in range(0, WIDTH, head):
        part = slice(start, start + head)
        scores = query[..., part] @ key[..., part].mT / head**0.5 + bias[:, None]
        probabilities = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        contexts.append(probabilities @ value[..., part])
        received += (probabilities * (1 - torch.eye(6))).sum(dim=1) / HEADS
    torch.testing.assert_close(attended.output, attention.proj(torch.cat(contexts, dim=-1)), atol=1e-5, rtol=1e-5)
    assert (attended.key is None) == (needs == "nothing") and (attended.importance is None) == (
        needs != "probabilities"
    )
    if attended.key is not None:
        torch.testing.assert_close(attended.key, key.unflatten(-1, (HEADS, head)).mean(dim=2))
    if attended.importance is not None:
        torch.testing.assert_close(attended.importance, received, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("needs", ["nothing", "probabilities"])
def test_no_gradient_passes_through_the_key_bias(needs: str) -> None:
    attention, bias = Attention(WIDTH, HEADS), torch.rand(2, 5, requires_grad=True)
    tokens = torch.randn(2, 5, WIDTH, requires_grad=True)
    attention(tokens, bias, needs).output.sum().backward()
    assert bias.grad is None and tokens.grad.abs().sum() > 0


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


def test_time_is_resized_to_the_nearest() -> None:
    embedding = torch.arange(4.0).view(1, 4, 1)
    assert resize_in_time(embedding, 8).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resize_in_time(embedding, 2).flatten().tolist() == [0, 2]
    assert resize_in_time(embedding, 4) is embedding
