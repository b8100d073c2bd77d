"""The whole model: what its parts give together, against the same taken apart by hand."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from configs.schema import AggregationConfig, VideoConfig
from models.parts.momentum import MomentumTwin
from models.parts.pixels import normalise_pixels
from models.parts.tokenizer import with_first
from models.testa.model import VisionLanguageModel
from tests.models.tiny import (
    DEC,
    ENC,
    FRAMES,
    IMAGE,
    SEP,
    TEXT,
    VIDEO,
    VOCABULARY,
    WIDTH,
    clips,
    encoder,
    texts,
    vision_language,
)

MERGING = AggregationConfig(reducer="geometry", frames_per_block=1, patches_per_block=3)


@torch.no_grad()
def test_features_are_unit_length_and_their_own() -> None:
    model, (ids, mask) = vision_language(), texts((6, 3, 5))
    video, text = model.encode_video(clips(3)), model.encode_text(ids, mask)
    for embedding in (video.embedding, text.embedding):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
        assert (embedding @ embedding.T).fill_diagonal_(0).max() < 0.999
    pooled = model.visual_encoder(clips(3)).tokens.mean(dim=1)
    torch.testing.assert_close(video.embedding, F.normalize(model.vision_proj(pooled), dim=-1))
    first = model.text_encoder(ids, mask)[:, 0]
    torch.testing.assert_close(text.embedding, F.normalize(model.text_proj(first), dim=-1))


@torch.no_grad()
def test_weighted_pooling_weighs_by_size() -> None:
    weighted = AggregationConfig(reducer="geometry", frames_per_block=1, patches_per_block=3, weighted_pooling=True)
    model = vision_language(aggregation=weighted)
    encoded = model.visual_encoder(clips(2))
    repeated = [
        one.repeat_interleave(size.long(), dim=0).mean(dim=0)
        for one, size in zip(encoded.tokens, encoded.size, strict=True)
    ]
    expected = F.normalize(model.vision_proj(torch.stack(repeated)), dim=-1)
    torch.testing.assert_close(model.encode_video(clips(2)).embedding, expected)
    unweighted = vision_language(aggregation=MERGING).encode_video(clips(2)).embedding
    assert not torch.allclose(unweighted, expected, atol=1e-4)


@pytest.mark.parametrize("statistics", [{}, {"pixel_mean": (0.5, 0.4, 0.3), "pixel_std": (0.5, 0.25, 0.1)}])
@torch.no_grad()
def test_pixels_equal_normalised_floats(statistics: dict[str, tuple[float, float, float]]) -> None:
    video = replace(VIDEO, **statistics)
    model = vision_language(video=video)
    pixels = torch.randint(0, 256, (2, FRAMES, 3, IMAGE, IMAGE), dtype=torch.uint8)
    mean, std = video.pixel_mean, video.pixel_std
    by_hand = torch.stack([(pixels[:, :, c].float() / 255 - mean[c]) / std[c] for c in range(3)], dim=2)
    torch.testing.assert_close(normalise_pixels(pixels, mean, std, torch.float32), by_hand, atol=1e-5, rtol=1e-5)
    tokens = model.encode_video(by_hand).tokens
    torch.testing.assert_close(model.encode_video(pixels).tokens, tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.video_tokens(pixels), tokens, atol=1e-5, rtol=1e-5)
    ids, mask = texts((6, 4))
    embedding = MomentumTwin(model, 0.9).embed(model, pixels, ids, mask)[0]
    torch.testing.assert_close(embedding, model.encode_video(by_hand).embedding, atol=1e-5, rtol=1e-5)


def test_the_published_statistics_are_the_default() -> None:
    """CLIP's, which BLIP and TESTA use."""
    assert VideoConfig().pixel_mean == (0.48145466, 0.4578275, 0.40821073)
    assert VideoConfig().pixel_std == (0.26862954, 0.26130258, 0.27577711)


@torch.no_grad()
def test_matching_reads_both_the_video_and_the_text() -> None:
    model, (ids, mask) = vision_language(), texts((6, 6))
    tokens = model.encode_video(clips(2)).tokens
    logits = model.match(tokens[[0, 0, 1]], ids[[0, 1, 0]], mask[[0, 1, 0]])
    assert len({round(value, 4) for value in logits[:, 1].tolist()}) == 3
    grounded = model.text_encoder(with_first(ids, ENC), mask, model.text_encoder.project(tokens))
    torch.testing.assert_close(model.match(tokens, ids, mask), model.itm_head(grounded[:, 0]))
    shared = model.match(tokens[:1], ids, mask)
    torch.testing.assert_close(shared, model.match(tokens[[0, 0]], ids, mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@torch.no_grad()
def test_caption_loss_by_hand(smoothing: float) -> None:
    model, (ids, mask) = vision_language("separate", label_smoothing=smoothing), texts((6, 3))
    tokens = model.encode_video(clips(2)).tokens
    found = model.context_loss(tokens, ids, mask)
    for row in range(2):
        expected, length = 0.0, int(mask[row].sum())
        for position in range(1, length):
            before = torch.cat([torch.tensor([DEC]), ids[row, 1:position]])[None]
            context = model.text_decoder.bert.project(tokens[row : row + 1])
            scores = model.text_decoder(before, None, context)[0, -1].log_softmax(dim=-1)
            expected -= float((1 - smoothing) * scores[ids[row, position]] + smoothing * scores.mean())
        assert float(found[row]) == pytest.approx(expected, abs=1e-4)


def answering() -> VisionLanguageModel:
    return vision_language("separate", "question", heads=False)


def best_by_hand(model: VisionLanguageModel, states: Tensor, mask: Tensor, answers: tuple[Tensor, Tensor]) -> list[int]:
    """For each question the answer of least loss, each pair taken alone."""
    best = []
    for one, seen in zip(states, mask, strict=True):
        losses = [
            float(model.context_loss(one[None], ids[None], kept[None], seen[None]))
            for ids, kept in zip(*answers, strict=True)
        ]
        best.append(losses.index(min(losses)))
    return best


@torch.no_grad()
def test_answer_equals_ranking_all_answers() -> None:
    model = vision_language("separate", "question")
    (questions, mask), answers = texts((7, 4, 5, 6)), texts((3, 4, 3, 6, 5, 4, 3, 3, 4), seed=5)
    states = model.ground_text(model.encode_video(clips(4)).tokens, questions, mask)
    expected = best_by_hand(model, states, mask, answers)
    assert len(set(expected)) > 1
    assert model.answer(states, mask, *answers).tolist() == expected
    assert model.answer(states, mask, *answers, shortlist=9).tolist() == expected


@torch.no_grad()
def test_the_shortlist_is_of_the_likeliest_first_words() -> None:
    model = vision_language("separate", "question")
    (questions, mask), (ids, kept) = texts((7, 4, 5, 6)), texts((3, 4, 3, 6, 5, 4, 3, 3, 4), seed=5)
    states = model.ground_text(model.encode_video(clips(4)).tokens, questions, mask)
    found = model.answer(states, mask, ids, kept, shortlist=2).tolist()
    for row in range(4):
        context = model.text_decoder.bert.project(states[row : row + 1])
        first = model.text_decoder(torch.tensor([[DEC]]), None, context, mask[row : row + 1])[0, 0]
        two = sorted(range(9), key=lambda answer: -float(first[ids[answer, 1]]))[:2]
        best = best_by_hand(model, states[row : row + 1], mask[row : row + 1], (ids[two], kept[two]))[0]
        assert found[row] == two[best]
        assert model.answer(states[row : row + 1], mask[row : row + 1], ids, kept, shortlist=1).item() == two[0]


@torch.no_grad()
def test_generate_searches_or_samples() -> None:
    model = vision_language("tied")
    tokens = model.encode_video(clips(2)).tokens
    beams = model.generate(tokens, num_beams=3, max_tokens=7)
    assert (beams[:, 0] == DEC).all() and beams.shape[1] <= 8
    assert torch.equal(
        model.generate(tokens, top_p=1e-9, max_tokens=7), model.generate(tokens, num_beams=1, max_tokens=7)
    )

    def mean_likelihood(text: list[int]) -> float:
        text = text[: text.index(SEP) + 1] if SEP in text else text
        scores = model.text_decoder(torch.tensor([text[:-1]]), None, model.text_decoder.bert.project(tokens[:1]))
        return float(scores[0].log_softmax(-1).gather(1, torch.tensor(text[1:])[:, None]).mean())

    # Every text of one word and an end, and every text of a few that are drawn, is at most as likely as what is found.
    found = mean_likelihood(model.generate(tokens[:1], num_beams=VOCABULARY // 2, max_tokens=2)[0].tolist())
    assert found >= max(mean_likelihood([DEC, word, SEP]) for word in range(VOCABULARY) if word != SEP) - 1e-5


def test_a_model_without_decoder_says_so() -> None:
    model = vision_language()
    with pytest.raises(ValueError, match="no text decoder"):
        model.generate(torch.randn(1, 3, 32))


@pytest.mark.parametrize(
    ("losses", "decoder"),
    [
        (("vtc",), "none"),
        (("vtc", "vtm"), "none"),
        (("vtc", "vtm", "cap"), "tied"),
        (("vtc", "cap"), "tied"),
        (("cap",), "tied"),
    ],
)
def test_every_parameter_that_is_trained_has_a_gradient(losses: tuple[str, ...], decoder: str) -> None:
    model, (ids, mask) = vision_language(decoder), texts((6, 4))
    model.freeze_unused(losses)
    video, text = model.encode_video(clips(2)), model.encode_text(ids, mask)
    loss = torch.zeros(())
    if "vtc" in losses:
        loss = loss + (video.embedding @ text.embedding.T / model.temp).log_softmax(dim=1).diagonal().sum()
    if "vtm" in losses:
        loss = loss + model.match(video.tokens, ids, mask).log_softmax(dim=1)[:, 1].sum()
    if "cap" in losses:
        loss = loss + model.context_loss(video.tokens, ids, mask).sum()
    loss.backward()
    frozen = trained_and_reached(model)
    without = {"vtm": {"itm_head"}, "vtc": {"vision_proj", "text_proj", "temp"}, "cap": set()}
    assert frozen == set().union(*(parts for loss_name, parts in without.items() if loss_name not in losses))


def trained_and_reached(model: VisionLanguageModel) -> set[str]:
    """The parts of which nothing is trained, once what is trained is exactly what has a gradient."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {name.split(".")[0] for name, _ in model.named_parameters()} - {name.split(".")[0] for name in trained}


def test_a_model_that_answers_trains_all_it_has() -> None:
    model, (ids, mask), (answers, kept) = answering(), texts((6, 4)), texts((3, 5), seed=1)
    model.freeze_unused(("vqa",))
    states = model.ground_text(model.video_tokens(clips(2)), ids, mask)
    model.context_loss(states, answers, kept, mask).sum().backward()
    assert trained_and_reached(model) == set()
    assert {name.split(".")[0] for name in model.state_dict()} == {"visual_encoder", "text_encoder", "text_decoder"}


def test_a_model_that_captions_trains_all_it_has() -> None:
    model, (ids, mask) = vision_language("separate", text_encoder=False, heads=False), texts((6, 4))
    model.freeze_unused(("cap",))
    model.context_loss(model.video_tokens(clips(2)), ids, mask).sum().backward()
    assert trained_and_reached(model) == set()
    assert {name.split(".")[0] for name in model.state_dict()} == {"visual_encoder", "text_decoder"}


def test_a_decoder_of_questions_is_as_wide_as_the_questions() -> None:
    narrow = replace(TEXT, width=16)
    for context, width in (("video", WIDTH), ("question", 16)):
        model = vision_language("separate", context, heads=False, text=narrow)
        key = model.text_decoder.bert.encoder.layer[0].crossattention.self.key
        assert (key.in_features, key.out_features) == (width, 16)


def test_the_temperature_is_kept_in_its_range() -> None:
    model = vision_language()
    for value, expected in ((0.07, 0.07), (0.9, 0.5), (-1.0, 0.001)):
        model.temp.data.fill_(value)
        model.clamp_temperature()
        assert model.temp.item() == pytest.approx(expected)


def test_a_capped_schedule_is_said_once_a_size(caplog: pytest.LogCaptureFixture) -> None:
    model = vision_language(aggregation=MERGING)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        for frames in (FRAMES, 2, 2, 3, 2):
            model.encode_video(clips(1, frames))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "aggregation is capped: frames to leave per block (1, 1), but 2 frames hold only (0, 0)",
        "aggregation is capped: frames to leave per block (1, 1), but 3 frames hold only (1, 0)",
    ]


@torch.no_grad()
def test_the_model_holds_the_encoder_it_was_given_the_sizes_of() -> None:
    model, alone = vision_language(aggregation=MERGING), encoder("divided", MERGING)
    alone.load_state_dict(model.visual_encoder.state_dict())
    assert torch.equal(model.encode_video(clips(2)).tokens, alone(clips(2)).tokens)
