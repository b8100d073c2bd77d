"""The text towers against transformers' BLIP on copied weights, and what theirs cannot do against plain loops."""

import pytest
import torch
from torch import Tensor
from transformers.models.blip.configuration_blip import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel, BlipTextModel

from models.parts.bert import TextDecoder, TextEncoder, tie_encoder_to_decoder
from models.parts.tokenizer import with_first
from tests.models.tiny import DEC, TEXT, VOCABULARY, WIDTH, randomise, texts

CONTEXT_WIDTH = 24
BLIP = BlipTextConfig(
    vocab_size=TEXT.vocab_size,
    hidden_size=TEXT.width,
    encoder_hidden_size=CONTEXT_WIDTH,
    intermediate_size=TEXT.intermediate,
    num_hidden_layers=TEXT.depth,
    num_attention_heads=TEXT.heads,
    max_position_embeddings=TEXT.max_positions,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    layer_norm_eps=1e-12,
    is_decoder=True,
    pad_token_id=0,
)


def weights_of(theirs: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in theirs.state_dict().items() if not name.endswith("position_ids")}


@pytest.fixture
def encoders() -> tuple[TextEncoder, BlipTextModel]:
    theirs = BlipTextModel(BLIP, add_pooling_layer=False).eval()
    randomise(theirs)
    ours = TextEncoder(TEXT, CONTEXT_WIDTH).eval()
    ours.load_state_dict(weights_of(theirs))
    return ours, theirs


@pytest.fixture
def decoders() -> tuple[TextDecoder, BlipTextLMHeadModel]:
    theirs = BlipTextLMHeadModel(BLIP).eval()
    randomise(theirs)
    ours = TextDecoder(TEXT, CONTEXT_WIDTH).eval()
    ours.load_state_dict(weights_of(theirs))
    return ours, theirs


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_text_alone_equals_transformers(encoders: tuple[TextEncoder, BlipTextModel]) -> None:
    ours, theirs = encoders
    ids, mask = texts((9, 4, 2))
    expected = theirs(ids, attention_mask=mask, is_decoder=False).last_hidden_state
    close(ours(ids, mask)[mask.bool()], expected[mask.bool()])
    close(ours(ids[:1], None), expected[:1])


@torch.no_grad()
def test_grounded_text_equals_transformers(encoders: tuple[TextEncoder, BlipTextModel]) -> None:
    ours, theirs = encoders
    ids, mask = texts((9, 4, 2))
    context = torch.randn(3, 7, CONTEXT_WIDTH)
    expected = theirs(
        ids,
        attention_mask=mask,
        is_decoder=False,
        encoder_hidden_states=context,
        encoder_attention_mask=torch.ones(3, 7),
    ).last_hidden_state
    close(ours(ids, mask, ours.project(context))[mask.bool()], expected[mask.bool()])
    assert not torch.allclose(ours(ids, mask)[mask.bool()], expected[mask.bool()], atol=1e-2)


@torch.no_grad()
def test_causal_logits_equal_transformers(decoders: tuple[TextDecoder, BlipTextLMHeadModel]) -> None:
    ours, theirs = decoders
    ids, mask = texts((9, 4, 2))
    context = torch.randn(3, 7, CONTEXT_WIDTH)
    expected = theirs(ids, attention_mask=mask, is_decoder=True, encoder_hidden_states=context).logits
    close(ours(ids, mask, ours.bert.project(context))[mask.bool()], expected[mask.bool()])


@torch.no_grad()
def test_a_word_sees_only_those_before_it(decoders: tuple[TextDecoder, BlipTextLMHeadModel]) -> None:
    ours, _ = decoders
    ids, _ = texts((8,))
    context = ours.bert.project(torch.randn(1, 5, CONTEXT_WIDTH))
    other = ids.clone()
    other[:, 5:] = 7
    close(ours(ids, None, context)[:, :5], ours(other, None, context)[:, :5])
    assert not torch.allclose(ours(ids, None, context)[:, 5], ours(other, None, context)[:, 5], atol=1e-2)


@torch.no_grad()
def test_masked_context_has_no_influence(encoders: tuple[TextEncoder, BlipTextModel]) -> None:
    """transformers' model ignores this mask, which is why the tower is our own."""
    ours, _ = encoders
    ids, mask = texts((5, 3))
    context = torch.randn(2, 6, CONTEXT_WIDTH)
    context_mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    found = ours(ids, mask, ours.project(context), context_mask)
    close(found[1:, :3], ours(ids[1:, :3], None, ours.project(context[1:, :3])))
    context[1, 3:] = 100.0
    assert torch.equal(ours(ids, mask, ours.project(context), context_mask), found)
    context[1, 2] += 1
    assert not torch.allclose(ours(ids, mask, ours.project(context), context_mask)[1, :3], found[1, :3], atol=1e-3)


@torch.no_grad()
def test_padding_has_no_influence(encoders: tuple[TextEncoder, BlipTextModel]) -> None:
    ours, _ = encoders
    ids, mask = texts((9, 4))
    close(ours(ids, mask)[1:, :4], ours(ids[1:, :4], mask[1:, :4]))
    changed = ids.clone()
    changed[1, 4:] = 11
    assert torch.equal(ours(changed, mask)[1, :4], ours(ids, mask)[1, :4])


@pytest.mark.parametrize("cuts", [(1, 1, 1, 1, 1, 1), (3, 2, 1), (1, 5), (6,)])
@torch.no_grad()
def test_stepping_equals_the_whole(decoders: tuple[TextDecoder, BlipTextLMHeadModel], cuts: tuple[int, ...]) -> None:
    ours, _ = decoders
    ids, _ = texts((6, 6))
    context_mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    context = ours.bert.project(torch.randn(2, 4, CONTEXT_WIDTH))
    whole = ours(ids, None, context, context_mask)
    past, end = None, 0
    for part in ids.split(cuts, dim=1):
        logits, past = ours.step(part, context, context_mask, past)
        end += part.shape[1]
        close(logits, whole[:, end - 1])
    assert past[0].keys.shape[2] == 6


@torch.no_grad()
def test_one_shared_context_equals_its_copies(encoders: tuple[TextEncoder, BlipTextModel]) -> None:
    ours, _ = encoders
    ids, mask = texts((9, 4, 2))
    context = torch.randn(1, 7, CONTEXT_WIDTH)
    shared = ours.project(context)
    assert shared[0].keys.shape[0] == 1
    close(ours(ids, mask, shared), ours(ids, mask, ours.project(context.expand(3, -1, -1))))


def test_tying_shares_all_but_self_attention() -> None:
    encoder, decoder = TextEncoder(TEXT, WIDTH), TextDecoder(TEXT, WIDTH)
    tie_encoder_to_decoder(encoder, decoder)
    own, others = dict(encoder.named_parameters()), dict(decoder.bert.named_parameters())
    assert own.keys() == others.keys()
    apart = {name for name, parameter in own.items() if parameter is not others[name]}
    assert apart == {name for name in own if ".attention." in name}
    assert len(apart) == TEXT.depth * 10


def test_tied_weights_take_the_gradients_of_both() -> None:
    encoder, decoder = TextEncoder(TEXT, WIDTH), TextDecoder(TEXT, WIDTH)
    tie_encoder_to_decoder(encoder, decoder)
    ids, mask = texts((6, 3))
    shared = encoder.encoder.layer[0].intermediate.dense.weight
    context = torch.randn(2, 4, WIDTH)
    losses = (
        lambda: encoder(ids, mask, encoder.project(context)).square().mean(),
        lambda: decoder(with_first(ids, DEC), mask, decoder.bert.project(context)).square().mean(),
    )
    each = [torch.autograd.grad(loss(), shared)[0] for loss in losses]
    (losses[0]() + losses[1]()).backward()
    assert all(gradient.abs().max() > 0 for gradient in each)
    torch.testing.assert_close(decoder.bert.encoder.layer[0].intermediate.dense.weight.grad, each[0] + each[1])


def test_the_head_uses_the_word_embeddings() -> None:
    decoder = TextDecoder(TEXT, WIDTH)
    assert decoder.cls["predictions"].decoder.weight is decoder.bert.embeddings.word_embeddings.weight
    assert sum(p.shape == (VOCABULARY, TEXT.width) for p in decoder.parameters()) == 1


def test_padding_starts_as_zero() -> None:
    assert not TextEncoder(TEXT, WIDTH).embeddings.word_embeddings.weight[0].any()


def test_a_text_longer_than_the_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens is longer than model.text.max_positions 16"):
        TextEncoder(TEXT, WIDTH)(torch.ones(1, 17, dtype=torch.int64), None)
