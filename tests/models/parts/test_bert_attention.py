"""Shared contexts, packed texts and dropped probabilities against the plain ways: outputs, gradients, what is kept."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.bert_attention import CHOSEN_AT_ONCE, Memory, Packing, Share, TextAttention, shares_of
from models.parts.dropped_attention import DroppedAttention
from tests.models.tiny import TEXT, randomise, texts

CONTEXT_WIDTH, TOKENS = 24, 5
# Rows of the contexts that six texts attend to, and how they are shared out over parts of a call.
SHARED: dict[str, tuple[list[int], list[tuple[int, list[int]]]]] = {
    "one for all": ([0] * 6, [(6, [0])]),
    "one each": ([0, 1, 2, 3, 4, 5], [(6, [0, 1, 2, 3, 4, 5])]),
    "three each": ([0, 0, 0, 1, 1, 1], [(6, [0, 1])]),
    "two each, then one each": ([0, 0, 1, 1, 1, 0], [(4, [0, 1]), (2, [1, 0])]),
    "one each, then one for all": ([2, 3, 1, 1, 1, 1], [(2, [2, 3]), (4, [1])]),
}


def attention() -> TextAttention:
    torch.manual_seed(0)
    built = TextAttention(TEXT, CONTEXT_WIDTH)
    randomise(built)
    return built.train()


def gradients_of(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    return list(torch.autograd.grad((output * weights).sum(), inputs))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", SHARED)
def test_sharing_equals_repeating(case: str, packed: bool) -> None:
    rows, parts = SHARED[case]
    layer, mask = attention(), texts((9, 4, 2, 9, 7, 3))[1]
    hidden = torch.randn(*mask.shape, TEXT.width, requires_grad=True)
    contexts = torch.randn(6, TOKENS, CONTEXT_WIDTH, requires_grad=True)
    inputs = [hidden, contexts, *layer.parameters()]
    plain = layer(hidden, [Share(6, layer.project(contexts[rows]))])[mask.bool()]
    projected = layer.project(contexts)
    shares = [Share(count, projected.rows(torch.tensor(of))) for count, of in parts]
    packing = Packing.of(mask) if packed else None
    found = layer(hidden if packing is None else packing.pack(hidden), shares, packing)
    found = found if packed else found[mask.bool()]
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(gradients_of(found, inputs), gradients_of(plain, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("at_once", [1, 7, 1000])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("contexts", [1, 2])
def test_chosen_tokens_equal_a_loop_over_texts(
    contexts: int, packed: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHOSEN_AT_ONCE, "cpu", at_once)
    layer, mask = attention(), texts((9, 4, 2, 9, 7, 3))[1]
    hidden = torch.randn(*mask.shape, TEXT.width, requires_grad=True)
    context = torch.randn(contexts, TOKENS, CONTEXT_WIDTH, requires_grad=True)
    places = torch.stack([torch.randperm(TOKENS)[:3] for _ in range(6)])
    seen = torch.rand(contexts, TOKENS) < 0.6
    for text, chosen in enumerate(places):
        seen[text * contexts // 6, chosen[0]] = True  # each text sees something
    inputs = [hidden, context, *layer.parameters()]

    rows = []
    for text, chosen in enumerate(places):
        row = text * contexts // 6
        alone = context[row, chosen[seen[row, chosen]]].unsqueeze(0)
        rows.append(layer(hidden[text, None, : int(mask[text].sum())], [Share(1, layer.project(alone))])[0])
    plain = torch.cat(rows)

    memory = Memory([layer.project(context)], seen).chosen(places)
    packing = Packing.of(mask) if packed else None
    (shares,) = shares_of([(6, memory)])
    found = layer(hidden if packing is None else packing.pack(hidden), shares, packing)
    found = found if packed else found[mask.bool()]
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(gradients_of(found, inputs), gradients_of(plain, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_texts_that_cannot_be_shared_out_evenly_are_refused() -> None:
    layer = attention()
    with pytest.raises(AssertionError, match="2 contexts do not share 3 texts evenly"):
        layer(torch.randn(3, 4, TEXT.width), [Share(3, layer.project(torch.randn(2, TOKENS, CONTEXT_WIDTH)))])


def test_packing_keeps_the_real_tokens_in_order_and_their_gradients() -> None:
    _, mask = texts((4, 6, 2))
    padded = torch.randn(3, 6, 5, requires_grad=True)
    packing = Packing.of(mask)
    assert packing is not None
    packed = packing.pack(padded)
    assert torch.equal(packed, torch.cat([padded[0, :4], padded[1], padded[2, :2]]))
    assert torch.equal(packed[packing.first_P], padded[:, 0])
    assert torch.equal(packing.pad(packed), padded * mask[..., None])
    gradient = torch.autograd.grad((packing.pad(packed) * 3).sum(), padded)[0]
    assert torch.equal(gradient, 3.0 * mask[..., None].expand(-1, -1, 5))
    assert Packing.of(torch.ones(2, 3)) is None


def dropped_by_hand(dropout: float) -> Callable[..., Tensor]:
    """Attention written out, which drops what `DroppedAttention` drops from the same seed."""

    def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        scores = query @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        kept = torch.empty(scores.shape, dtype=torch.bool).bernoulli_(1 - dropout)
        return (scores.softmax(dim=-1) * kept / (1 - dropout)) @ values

    return attend


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dropout", [0.1, 0.6])
def test_dropped_attention_equals_attention_written_out(dropout: float, masked: bool) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, count, 4, dtype=torch.float64, requires_grad=True) for count in (5, 7, 7)]
    mask = torch.rand(2, 1, 1, 7) > 0.3
    mask[..., 0] = True
    outputs = []
    for attend in (lambda *given: DroppedAttention.apply(*given, dropout), dropped_by_hand(dropout)):
        torch.manual_seed(1)
        outputs.append(attend(*inputs, mask if masked else None))
    torch.testing.assert_close(*outputs)
    for ours, theirs in zip(*(gradients_of(output, inputs) for output in outputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_nearly_nothing_dropped_equals_torchs_own() -> None:
    inputs = [torch.randn(2, 3, count, 4, requires_grad=True) for count in (5, 7, 7)]
    ours, theirs = DroppedAttention.apply(*inputs, None, 1e-7), F.scaled_dot_product_attention(*inputs)
    torch.testing.assert_close(ours, theirs)
    for found, expected in zip(gradients_of(ours, inputs), gradients_of(theirs, inputs), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_dropped_attention_scores_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, count, 4).bfloat16().requires_grad_() for count in (5, 300, 300)]
    exact = [part.detach().float().requires_grad_() for part in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(1)
        found = DroppedAttention.apply(*inputs, None, 0.1)
        torch.manual_seed(1)
        expected = DroppedAttention.apply(*exact, None, 0.1)
    assert found.dtype == torch.bfloat16 and expected.dtype == torch.float32
    torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=1e-2)  # one rounding to bfloat16
    for ours, theirs in zip(gradients_of(found, inputs), gradients_of(expected, exact), strict=True):
        torch.testing.assert_close(ours.float(), theirs, atol=2e-2, rtol=2e-2)


def test_dropout_drops_probabilities_in_training_alone() -> None:
    layer = attention()
    layer.dropout = 0.5
    hidden, projected = torch.randn(3, 4, TEXT.width), layer.project(torch.randn(3, TOKENS, CONTEXT_WIDTH))
    trained = [layer(hidden, [Share(3, projected)]) for _ in range(2)]
    assert not torch.allclose(*trained, atol=1e-3)
    layer.eval()
    evaluated = layer(hidden, [Share(3, projected)])
    layer.train().dropout = 0.0
    assert torch.equal(layer(hidden, [Share(3, projected)]), evaluated)


def test_what_backward_keeps_is_one_byte_a_score_and_no_copy_of_shared_keys_and_values() -> None:
    layer, length, tokens = attention(), 4, 500
    layer.dropout = 0.1
    projected = layer.project(torch.randn(2, tokens, CONTEXT_WIDTH))
    hidden = torch.randn(4, length, TEXT.width)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = layer(hidden, [Share(4, projected)])
    assert held.requires_grad
    for part in projected:
        assert kept.pop(part.untyped_storage().data_ptr()) == part.numel() * 4
    scores = 4 * TEXT.heads * length * tokens
    assert scores <= sum(kept.values()) < 2 * scores


@torch.no_grad()
def test_rows_come_in_few_sizes_and_the_repeated_last_one_changes_nothing() -> None:
    """100 real tokens of 130 are packed as 100, 33 as 34, and what is padded again is what it was."""
    sizes = set()
    for real in range(1, 131):
        mask = (torch.arange(130) < real).view(1, 130).long()
        mask = torch.cat([mask, mask[:, :1].expand(1, 130) * (torch.arange(130) < 1)])
        packing = Packing.of(mask)
        assert packing is not None and packing.first_P.tolist() == [0, real]
        padded = torch.randn(2, 130, 4)
        rows = packing.pack(padded)
        assert real + 1 <= len(rows) <= (real + 1) * 17 / 16
        assert torch.equal(packing.pad(rows), padded * mask.unsqueeze(-1))
        sizes.add(len(rows))
        with torch.enable_grad():
            assert len(Packing.of(mask).places_R) == real + 1
    assert len(sizes) < 70
