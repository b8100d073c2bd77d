"""Only first tokens, only real tokens, each video projected once: equal to the plain way, and how much it computes."""

import pytest
import torch
from torch import Tensor

from models.parts.bert import TextEncoder
from models.parts.bert_attention import Share
from models.parts.tokenizer import with_first
from models.testa.model import VisionLanguageModel
from tests.models.counts import counted_rows
from tests.models.parts.test_bert_attention import gradients_of
from tests.models.tiny import ENC, TEXT, WIDTH, clips, randomise, texts, vision_language

LENGTHS = (9, 4, 2, 9)
REAL, PADDED = sum(LENGTHS), len(LENGTHS) * max(LENGTHS)
TOKENS = 7
LAST = f"encoder.layer.{TEXT.depth - 1}"


def encoder(training: bool) -> TextEncoder:
    torch.manual_seed(0)
    built = TextEncoder(TEXT, WIDTH)
    randomise(built)
    return built.train(training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, (6, 6, 6, 6)])
@pytest.mark.parametrize("contexts", [0, 1, 2, 4])
def test_first_states_equal_those_of_the_whole(training: bool, lengths: tuple[int, ...], contexts: int) -> None:
    tower, (ids, mask) = encoder(training), texts(lengths)
    tokens = torch.randn(contexts, TOKENS, WIDTH, requires_grad=True)
    own = list(tower.parameters()) if contexts else [p for n, p in tower.named_parameters() if "cross" not in n]
    inputs = [tokens, *own] if contexts else own
    plain = tower(ids, mask, tower.project(tokens) if contexts else None)[:, 0]
    shares = ([Share(4, projected)] for projected in tower.projections(tokens)) if contexts else None
    found = tower.first_states(ids, mask, shares)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(gradients_of(found, inputs), gradients_of(plain, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_no_work_is_done_for_padding_in_evaluation_nor_for_other_tokens_of_the_last_layer(training: bool) -> None:
    tower, (ids, mask) = encoder(training), texts(LENGTHS)
    tokens = torch.randn(1, TOKENS, WIDTH)
    rows_of_texts = PADDED if training else REAL
    with counted_rows(tower) as rows:
        tower.first_states(ids, mask, ([Share(4, projected)] for projected in tower.projections(tokens)))
    for name, count in rows.items():
        if name.endswith(("crossattention.self.key", "crossattention.self.value")):
            assert count == TOKENS, name
        elif name.startswith(LAST) and not name.endswith(("attention.self.key", "attention.self.value")):
            assert count == len(LENGTHS), name
        else:
            assert count == rows_of_texts, name
    assert len(rows) == TEXT.depth * 10


def test_projections_are_made_layer_by_layer() -> None:
    tower = encoder(training=False)
    with counted_rows(tower) as rows:
        layers = tower.projections(torch.randn(1, TOKENS, WIDTH))
        assert not rows
        next(layers)
        assert set(rows) == {f"encoder.layer.0.crossattention.self.{part}" for part in ("key", "value")}


def pairs() -> tuple[VisionLanguageModel, Tensor, Tensor, Tensor]:
    model, (ids, mask) = vision_language(), texts(LENGTHS)
    with torch.no_grad():
        tokens = model.encode_video(clips(4)).tokens
    return model, tokens, ids, mask


def match_by_hand(model: VisionLanguageModel, tokens: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Each pair alone, without padding, all of its tokens in every layer."""
    logits = []
    for video, text, seen in zip(tokens, ids, mask, strict=True):
        text = with_first(text[None, : int(seen.sum())], ENC)
        states = model.text_encoder(text, None, model.text_encoder.project(video[None]))
        logits.append(model.itm_head(states[:, 0]))
    return torch.cat(logits)


MATCHED: dict[str, tuple[list[int], list[int], list[int] | None]] = {
    # rows of the videos given, each text's video, `about`
    "one video for all": ([2], [2, 2, 2, 2], None),
    "one each": ([0, 1, 2, 3], [0, 1, 2, 3], None),
    "two each": ([3, 1], [3, 3, 1, 1], None),
    "about": ([0, 1, 2], [1, 0, 2, 1], [1, 0, 2, 1]),
    "all about one of two": ([0, 1], [1, 1, 1, 1], [1, 1, 1, 1]),
}


@pytest.mark.parametrize("case", MATCHED)
@pytest.mark.parametrize("training", [False, True])
def test_matching_equals_each_pair_alone_and_projects_each_video_once(case: str, training: bool) -> None:
    model, tokens, ids, mask = pairs()
    model.train(training)
    given, each, about = MATCHED[case]
    tokens.requires_grad_()
    expected = match_by_hand(model, tokens[each], ids, mask)
    with counted_rows(model.text_encoder) as rows:
        found = model.match(tokens[given], ids, mask, None if about is None else torch.tensor(about))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    cross = [count for name, count in rows.items() if "crossattention.self.key" in name]
    assert cross == [len(given) * tokens.shape[1]] * TEXT.depth
    inputs = [tokens, model.itm_head.weight, *(p for n, p in model.text_encoder.named_parameters())]
    for ours, theirs in zip(gradients_of(found, inputs), gradients_of(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_pairs_score_does_not_depend_on_the_other_texts() -> None:
    model, tokens, ids, mask = pairs()
    together = model.match(tokens[:1], ids, mask)
    for order in ([0], [2], [2, 1], [3, 0, 2], [1, 1, 1]):
        torch.testing.assert_close(model.match(tokens[:1], ids[order], mask[order]), together[order])


@torch.no_grad()
def test_matching_in_bfloat16_is_close() -> None:
    model, tokens, ids, mask = pairs()
    exact = model.match(tokens[:1], ids, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.match(tokens[:1], ids, mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=0.05, rtol=0.05)
