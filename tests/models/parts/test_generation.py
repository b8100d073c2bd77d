"""Beam search against transformers' generate on the same weights, and nucleus sampling against a loop."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel

from models.parts.bert import TextDecoder
from models.parts.generation import beam_search, nucleus_sampling
from tests.models.parts.test_bert import BLIP, CONTEXT_WIDTH, weights_of
from tests.models.tiny import DEC, SEP, TEXT, VOCABULARY, randomise


def decoders(seed: int, end_bias: float) -> tuple[TextDecoder, BlipTextLMHeadModel]:
    """The same random decoder as ours and as theirs; `end_bias` says how readily it ends a text."""
    torch.manual_seed(seed)
    theirs = BlipTextLMHeadModel(BLIP).eval()
    randomise(theirs, std=0.3)
    with torch.no_grad():
        theirs.cls.predictions.bias[SEP] = end_bias
    ours = TextDecoder(TEXT, CONTEXT_WIDTH).eval()
    ours.load_state_dict(weights_of(theirs))
    return ours, theirs


def of_one_length(*found: Tensor) -> list[Tensor]:
    longest = max(ids.shape[1] for ids in found)
    return [F.pad(ids, (0, longest - ids.shape[1])) for ids in found]


@pytest.mark.parametrize("num_beams", [1, 3, 5])
@pytest.mark.parametrize("end_bias", [-1.0, 2.0, 4.0])
@pytest.mark.parametrize(("min_tokens", "max_tokens"), [(0, 12), (4, 10), (1, 1)])
@torch.no_grad()
def test_beam_search_equals_transformers(num_beams: int, end_bias: float, min_tokens: int, max_tokens: int) -> None:
    for seed in range(3):
        ours, theirs = decoders(seed, end_bias)
        context = torch.randn(4, 6, CONTEXT_WIDTH)
        found = beam_search(
            ours, ours.bert.project(context), None, DEC, SEP,
            num_beams=num_beams, min_tokens=min_tokens, max_tokens=max_tokens,
        )  # fmt: skip
        expected = theirs.generate(
            input_ids=torch.full((4, 1), DEC),
            encoder_hidden_states=context,
            encoder_attention_mask=torch.ones(4, 6),
            num_beams=num_beams, do_sample=False, min_new_tokens=min_tokens, max_new_tokens=max_tokens,
            eos_token_id=SEP, pad_token_id=0,
        )  # fmt: skip
        ended = (expected == SEP).cumsum(dim=1) - (expected == SEP).int() > 0
        found, expected = of_one_length(found, expected.masked_fill(ended, 0))  # theirs pads with [SEP] instead of 0
        assert torch.equal(found, expected)
        ends = (found == SEP).int().argmax(dim=1)
        assert ((ends == 0) | (ends > min_tokens)).all()


@torch.no_grad()
def test_texts_of_several_lengths_occur() -> None:
    """What the comparison rests on: texts that end early, late and not at all."""
    lengths = set()
    for seed in range(3):
        for end_bias in (-1.0, 2.0, 4.0):
            ours, _ = decoders(seed, end_bias)
            context = ours.bert.project(torch.randn(4, 6, CONTEXT_WIDTH))
            found = beam_search(ours, context, None, DEC, SEP, num_beams=3, min_tokens=0, max_tokens=12)
            lengths.update(int(end) for end in (found == SEP).int().argmax(dim=1))
    assert 0 in lengths and len(lengths) >= 4


@pytest.mark.parametrize("end_bias", [2.0, 4.0])
@torch.no_grad()
def test_a_text_does_not_depend_on_the_rest_of_its_batch(end_bias: float) -> None:
    ours, _ = decoders(0, end_bias)
    context = torch.randn(6, 6, CONTEXT_WIDTH)
    mask = (torch.arange(6) < torch.tensor([6, 5, 4, 3, 2, 1])[:, None]).long()
    settings = {"num_beams": 3, "min_tokens": 1, "max_tokens": 14}
    together = beam_search(ours, ours.bert.project(context), mask, DEC, SEP, **settings)
    for index in range(6):
        seen = context[index : index + 1, : 6 - index]  # the mask hides the rest
        alone = beam_search(ours, ours.bert.project(seen), None, DEC, SEP, **settings)
        assert torch.equal(*of_one_length(alone, together[index : index + 1]))


def greedy(decoder: TextDecoder, context: Tensor, max_tokens: int) -> list[int]:
    """The likeliest word after the likeliest word, each from a forward of the whole text; until it ends."""
    text = [DEC]
    while len(text) <= max_tokens and SEP not in text:
        logits = decoder(torch.tensor([text]), None, decoder.bert.project(context))
        text.append(int(logits[0, -1].argmax()))
    return text


@torch.no_grad()
def test_a_tiny_nucleus_and_a_single_beam_are_greedy_decoding() -> None:
    for end_bias in (-1.0, 4.0):
        ours, _ = decoders(1, end_bias)
        context = torch.randn(3, 6, CONTEXT_WIDTH)
        projected = ours.bert.project(context)
        sampled = nucleus_sampling(ours, projected, None, DEC, SEP, torch.rand(3, 9), top_p=1e-9, min_tokens=0)
        searched = beam_search(ours, projected, None, DEC, SEP, num_beams=1, min_tokens=0, max_tokens=9)
        for index in range(3):
            expected = torch.tensor(greedy(ours, context[index : index + 1], 9))[None]
            assert torch.equal(*of_one_length(sampled[index : index + 1], expected))
            assert torch.equal(*of_one_length(searched[index : index + 1], expected))


@torch.no_grad()
def test_words_are_drawn_from_the_nucleus_in_proportion() -> None:
    ours, _ = decoders(2, 0.0)
    context = ours.bert.project(torch.randn(1, 6, CONTEXT_WIDTH).expand(4000, -1, -1))
    drawn = nucleus_sampling(ours, context, None, DEC, SEP, torch.rand(4000, 1), top_p=0.6, min_tokens=1)[:, 1]
    logits = ours.step(torch.tensor([[DEC]]), [type(layer)(*(p[:1] for p in layer)) for layer in context], None, None)[
        0
    ]
    logits[:, SEP] = -torch.inf
    likelihood = logits.softmax(dim=-1)[0].tolist()
    nucleus, held = [], 0.0
    for word in sorted(range(VOCABULARY), key=lambda word: -likelihood[word]):
        if held >= 0.6:
            break
        nucleus.append(word)
        held += likelihood[word]
    assert 2 <= len(nucleus) < VOCABULARY
    counts = torch.bincount(drawn, minlength=VOCABULARY)
    assert set(counts.nonzero().flatten().tolist()) <= set(nucleus)
    for word in nucleus:
        assert float(counts[word]) / 4000 == pytest.approx(likelihood[word] / held, abs=0.03)


def sampled_by_hand(
    decoder: TextDecoder, context: Tensor, noise: list[float], top_p: float, min_tokens: int
) -> list[int]:
    """One text, each word from a forward of all before it; `noise` says how far into the nucleus each is taken."""
    text = [DEC]
    for written, place in enumerate(noise, start=1):
        scores = decoder(torch.tensor([text]), None, decoder.bert.project(context))[0, -1].double()
        if written <= min_tokens:
            scores[SEP] = -torch.inf
        likelihood = scores.softmax(dim=-1).tolist()
        nucleus: list[int] = []
        for word in sorted(range(VOCABULARY), key=lambda word: -likelihood[word]):
            nucleus.append(word)
            if sum(likelihood[word] for word in nucleus) >= top_p:
                break
        left = place * sum(likelihood[word] for word in nucleus)
        for word in nucleus:
            left -= likelihood[word]
            if left < 0:
                break
        text.append(word)
        if word == SEP:
            break
    return text


@pytest.mark.parametrize(("top_p", "min_tokens"), [(0.9, 2), (0.5, 1), (1.0, 0)])
@torch.no_grad()
def test_nucleus_sampling_equals_a_loop_with_the_same_noise(top_p: float, min_tokens: int) -> None:
    words: set[int] = set()
    for end_bias in (0.0, 3.0):
        ours, _ = decoders(4, end_bias)
        context, noise = torch.randn(8, 6, CONTEXT_WIDTH), torch.rand(8, 9)
        noise[0] = 1 - 2**-24  # the largest there is
        found = nucleus_sampling(
            ours, ours.bert.project(context), None, DEC, SEP, noise, top_p=top_p, min_tokens=min_tokens
        )
        for row in range(8):
            expected = sampled_by_hand(ours, context[row : row + 1], noise[row].tolist(), top_p, min_tokens)
            assert torch.equal(*of_one_length(found[row : row + 1], torch.tensor(expected)[None]))
        words.update(found.flatten().tolist())
    assert len(words) > 10  # it was not always the likeliest


@torch.no_grad()
def test_a_sampled_text_does_not_depend_on_the_rest_of_its_batch() -> None:
    ours, _ = decoders(0, 3.0)
    context, noise = torch.randn(6, 6, CONTEXT_WIDTH), torch.rand(6, 12)
    settings = {"top_p": 0.9, "min_tokens": 1}
    together = nucleus_sampling(ours, ours.bert.project(context), None, DEC, SEP, noise, **settings)
    for index in range(6):
        row = slice(index, index + 1)
        alone = nucleus_sampling(ours, ours.bert.project(context[row]), None, DEC, SEP, noise[row], **settings)
        assert torch.equal(*of_one_length(alone, together[row]))


@torch.no_grad()
def test_sampled_texts_end_once_and_not_too_early() -> None:
    ours, _ = decoders(0, 4.0)
    context = ours.bert.project(torch.randn(50, 6, CONTEXT_WIDTH))
    found = nucleus_sampling(ours, context, None, DEC, SEP, torch.rand(50, 10), top_p=0.9, min_tokens=2)
    for text in found.tolist():
        if SEP in text:
            end = text.index(SEP)
            assert end > 2
            assert not any(text[end + 1 :])
    assert len({text.index(SEP) for text in found.tolist() if SEP in text}) > 2
