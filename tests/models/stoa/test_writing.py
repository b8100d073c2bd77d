"""Writing in one pass equals a pass a token, and writing with a cache equals writing without one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.bert_attention import KeysValues
from models.parts.generation import beam_search
from models.stoa.fusion import ClipMemory
from models.stoa.model import StoaModel
from models.stoa.objectives import writing_loss
from models.stoa.writing import write_greedily, write_with_beams
from tests.models.stoa.tiny import BOS, EOS, frames, objects, texts, tiny_model


def memory_of(model: StoaModel, counts: list[int]) -> ClipMemory:
    return model.encode_video(frames(len(counts)), objects(counts)).memory


def states_one_by_one(model: StoaModel, memory: ClipMemory, states: Tensor, positioned_frames: bool) -> Tensor:
    """The published way: a pass for each token, with the text up to it and positions alone behind it.

    The prefix does not see the text, and the text is causal; the output of slot i + 1 predicts token i + 1.
    """
    prefix, prefix_mask = model.fusion.prefix(memory, positioned_frames)
    num_prefix, num_tokens = prefix.shape[1], states.shape[1]
    positions = model.fusion.text_positions(num_tokens).expand(len(states), -1, -1)
    length = num_prefix + num_tokens
    may_see = torch.ones(length, length, dtype=torch.bool).tril()
    may_see[:num_prefix, :num_prefix] = True
    is_key = F.pad(prefix_mask, (0, num_tokens), value=True)
    bias = torch.zeros(len(states), 1, length, length)
    bias = bias.masked_fill(~(may_see & is_key[:, None, :])[:, None], -torch.inf)

    outputs = []
    for last in range(num_tokens - 1):
        is_given = (torch.arange(num_tokens) <= last)[:, None]
        hidden = torch.cat([prefix, torch.where(is_given, states, 0.0) + positions], dim=1)
        for block in model.fusion.transformer.resblocks:
            hidden = plain_block(block, hidden, bias)
        outputs.append(hidden[:, num_prefix + last + 1])
    return torch.stack(outputs, dim=1)


def plain_block(block: torch.nn.Module, hidden: Tensor, bias: Tensor) -> Tensor:
    """A CLIP block by torch's own multi-head attention."""
    heads, width = block.attn.heads, hidden.shape[-1]
    normed = block.ln_1(hidden).transpose(0, 1)
    mask = bias.expand(-1, heads, -1, -1).flatten(0, 1)
    attended, _ = F.multi_head_attention_forward(
        normed, normed, normed, width, heads, block.attn.in_proj_weight, block.attn.in_proj_bias, None, None, False,
        0.0, block.attn.out_proj.weight, block.attn.out_proj.bias, need_weights=False, attn_mask=mask,
    )  # fmt: skip
    hidden = hidden + attended.transpose(0, 1)
    inner = block.mlp.c_fc(block.ln_2(hidden))
    return hidden + block.mlp.c_proj(inner * torch.sigmoid(1.702 * inner))


@pytest.mark.parametrize("positioned_frames", [True, False])
def test_one_pass_equals_a_pass_a_token_in_loss_and_gradient(positioned_frames: bool) -> None:
    model = tiny_model()
    ids, mask = texts([7, 4, 5])
    first = torch.tensor([1, 2, 4])
    found = []
    for plain in (False, True):
        model.zero_grad()
        memory, states = memory_of(model, [2, 3, 0]), model.encode_text(ids, mask).states
        if plain:
            hidden = states_one_by_one(model, memory, states, positioned_frames)
            terms = [
                F.cross_entropy(model.vocabulary_logits(hidden[text, token - 1]), ids[text, token])
                for text in range(3)
                for token in range(int(first[text]), int(mask[text].sum()))
            ]
            loss = torch.stack(terms).mean()
        else:
            loss = writing_loss(model, memory, states, ids, mask, first, positioned_frames).mean
        loss.backward()
        found.append((loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (loss, gradients), (plain_loss, plain_gradients) = found
    assert abs(loss.item() - plain_loss.item()) < 1e-5
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], atol=1e-5, rtol=1e-4, msg=name)


class WithoutCache:
    """Predicts by encoding all that is written again."""

    def __init__(self, model: StoaModel, memory: ClipMemory) -> None:
        self.model, self.memory = model, memory

    def step(
        self, ids: Tensor, context: list[KeysValues], context_mask: Tensor | None, past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        written = ids if past is None else torch.cat([past[0].keys[:, 0, :, 0], ids], dim=1)
        about = torch.arange(len(self.memory.frames)).repeat_interleave(len(ids) // len(self.memory.frames))
        states = self.model.encode_text(written, torch.ones_like(written)).states
        states = F.pad(states, (0, 0, 0, 1))
        hidden = self.model.fusion.write(self.memory.rows(about), states)
        remembered = written[:, None, :, None]
        return self.model.vocabulary_logits(hidden[:, -1]), [KeysValues(remembered, remembered)]


@pytest.mark.parametrize("kind", ["fusion", "none"])
@torch.no_grad()
def test_greedy_writing_with_a_cache_equals_writing_without(kind: str) -> None:
    lengths = set()
    for seed in range(6):
        model = tiny_model(seed, objects=kind)
        model.fusion_logit_bias[EOS] += 1.5
        given = objects([2, 3, 0]) if kind == "fusion" else None
        memory = model.encode_video(frames(3, seed), given).memory
        written = write_greedily(model, memory, BOS, EOS, max_tokens=6)
        slow = WithoutCache(model, memory)
        newest, past = torch.full((3, 1), BOS), None
        for step in range(written.ids.shape[1]):
            logits, past = slow.step(newest, [], None, past)
            has_ended = (written.ids[:, :step] == EOS).any(dim=1)
            expected = logits.log_softmax(dim=-1)
            running = ~has_ended
            torch.testing.assert_close(written.log_probs[running, step], expected[running], atol=1e-5, rtol=1e-5)
            assert torch.equal(written.ids[:, step], expected.argmax(dim=-1).masked_fill(has_ended, 0))
            newest = written.ids[:, step : step + 1]
        lengths.add(tuple((written.ids != 0).sum(dim=1).tolist()))
    assert len(lengths) > 1, "texts of several lengths occur"


@pytest.mark.parametrize("num_beams", [1, 3])
@torch.no_grad()
def test_beam_search_with_a_cache_equals_beam_search_without(num_beams: int) -> None:
    for seed in range(4):
        model = tiny_model(seed)
        model.fusion_logit_bias[EOS] += 1.0
        memory = model.encode_video(frames(2, seed), objects([2, 0])).memory
        settings = {"num_beams": num_beams, "min_tokens": 0, "max_tokens": 6}
        found = write_with_beams(model, memory, BOS, EOS, **settings)
        batch = [KeysValues(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))]
        expected = beam_search(WithoutCache(model, memory), batch, None, BOS, EOS, **settings)
        assert torch.equal(found, expected)
        if num_beams == 1:
            greedy = write_greedily(model, memory, BOS, EOS, max_tokens=6).ids
            assert torch.equal(found[:, 1:], greedy[:, : found.shape[1] - 1])
