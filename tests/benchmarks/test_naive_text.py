"""The towers in plain lines against ours and transformers': output and gradients, alone, grounded and causal."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel

from benchmarks.naive_text import NaiveDecoder, NaiveText
from models.parts.bert import TextDecoder, TextEncoder, tie_encoder_to_decoder
from tests.models.parts.test_bert import BLIP
from tests.models.tiny import TEXT, randomise, texts

CONTEXT_WIDTH = 24
LENGTHS = (9, 4, 2)


def context(seed: int = 0) -> Tensor:
    """Context tokens (3, 7, D), a leaf."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(LENGTHS), 7, CONTEXT_WIDTH, generator=generator).requires_grad_()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def same_gradients(loss: Tensor, module: torch.nn.Module, expected: Tensor, other: torch.nn.Module) -> None:
    """Both losses have the same gradient for each parameter of the same name, or neither has one."""
    parameters, others = dict(module.named_parameters()), dict(other.named_parameters())
    assert parameters.keys() == others.keys()
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    wanted = torch.autograd.grad(expected, [others[name] for name in parameters], allow_unused=True)
    assert any(gradient is not None for gradient in wanted)
    for name, gradient, want in zip(parameters, gradients, wanted, strict=True):
        assert (gradient is None) == (want is None), name
        if gradient is not None:
            torch.testing.assert_close(gradient, want, atol=1e-5, rtol=1e-4, msg=name)


@pytest.fixture
def encoders() -> tuple[NaiveText, TextEncoder]:
    ours, naive = TextEncoder(TEXT, CONTEXT_WIDTH), NaiveText(TEXT, CONTEXT_WIDTH)
    torch.manual_seed(0)
    randomise(ours)
    naive.load_state_dict(ours.state_dict())
    return naive, ours


@pytest.fixture
def decoders() -> tuple[NaiveDecoder, TextDecoder]:
    ours, naive = TextDecoder(TEXT, CONTEXT_WIDTH), NaiveDecoder(TEXT, CONTEXT_WIDTH)
    torch.manual_seed(0)
    randomise(ours)
    naive.load_state_dict(ours.state_dict())
    return naive, ours


@pytest.mark.parametrize("grounded", [False, True])
def test_encoder_equals_ours(encoders: tuple[NaiveText, TextEncoder], grounded: bool) -> None:
    naive, ours = encoders
    ids, mask = texts(LENGTHS)
    video, same_video = context(), context()
    found = naive(ids, mask, video if grounded else None)[mask.bool()]
    expected = ours(ids, mask, ours.project(same_video) if grounded else None)[mask.bool()]
    close(found, expected)
    same_gradients(found.square().mean(), naive, expected.square().mean(), ours)
    if grounded:
        gradient = torch.autograd.grad(naive(ids, mask, video)[:, 0].square().mean(), video)[0]
        close(
            gradient,
            torch.autograd.grad(ours(ids, mask, ours.project(same_video))[:, 0].square().mean(), same_video)[0],
        )
        assert gradient.abs().max() > 1e-3
        assert not torch.allclose(naive(ids, mask, context(seed=1))[:, 0], naive(ids, mask, video)[:, 0], atol=1e-2)


def test_decoder_equals_ours(decoders: tuple[NaiveDecoder, TextDecoder]) -> None:
    naive, ours = decoders
    ids, mask = texts(LENGTHS)
    found = naive(ids, mask, context())[mask.bool()]
    expected = ours(ids, mask, ours.bert.project(context()))[mask.bool()]
    close(found, expected)
    target = ids[mask.bool()]
    same_gradients(F.cross_entropy(found, target), naive, F.cross_entropy(expected, target), ours)


def test_decoder_equals_transformers(decoders: tuple[NaiveDecoder, TextDecoder]) -> None:
    naive, _ = decoders
    theirs = BlipTextLMHeadModel(BLIP)
    assert not any(theirs.load_state_dict(naive.state_dict(), strict=False).unexpected_keys)
    ids, mask = texts(LENGTHS)
    found = naive(ids, mask, context())[mask.bool()]
    expected = theirs(ids, attention_mask=mask, is_decoder=True, encoder_hidden_states=context()).logits[mask.bool()]
    close(found, expected)


def test_tying_is_that_of_ours() -> None:
    encoder, decoder = NaiveText(TEXT, CONTEXT_WIDTH), NaiveDecoder(TEXT, CONTEXT_WIDTH)
    our_encoder, our_decoder = TextEncoder(TEXT, CONTEXT_WIDTH), TextDecoder(TEXT, CONTEXT_WIDTH)
    tie_encoder_to_decoder(encoder, decoder)
    tie_encoder_to_decoder(our_encoder, our_decoder)
    shared = {id(parameter) for parameter in decoder.parameters()}
    ours_shared = {id(parameter) for parameter in our_decoder.parameters()}
    assert {name for name, parameter in encoder.named_parameters() if id(parameter) in shared} == {
        name for name, parameter in our_encoder.named_parameters() if id(parameter) in ours_shared
    }
    ids, mask = texts(LENGTHS)
    decoder(ids, mask, context()).square().mean().backward()
    assert encoder.encoder["layer"][0].crossattention.self["key"].weight.grad is not None


def test_dropout_stands_where_ours_does() -> None:
    """Embeddings, both attentions' probabilities and outputs, and the feed-forward output: counted in one pass."""
    text = replace(TEXT, dropout=0.5)
    naive = NaiveDecoder(text, CONTEXT_WIDTH).train()
    ids, mask = texts(LENGTHS)
    dropped: list[tuple[int, ...]] = []
    for module in naive.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda module, inputs, output: dropped.append(tuple(output.shape)))
    first, second = naive(ids, mask, context()), naive(ids, mask, context())
    assert not torch.allclose(first, second)
    hidden = (3, 9, TEXT.width)
    own, cross = (3, TEXT.heads, 9, 9), (3, TEXT.heads, 9, 7)
    assert dropped[: len(dropped) // 2] == [hidden] + [own, hidden, cross, hidden, hidden] * TEXT.depth
    naive.eval()
    assert torch.equal(naive(ids, mask, context()), naive(ids, mask, context()))
