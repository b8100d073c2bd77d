"""The reranking benchmark: three ways with the same scores, what each of them projects, seconds of one pair."""

import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from benchmarks import rerank
from benchmarks.measure import measure
from benchmarks.rerank import Pairs
from benchmarks.settings import Settings, sections
from configs.evaluation import EvaluationConfig

DEPTH, WIDTH, VIDEO_WIDTH = 2, 48, 64
SMALL = (
    *(
        f"model.{name}"
        for name in (f"depth={DEPTH}", f"width={VIDEO_WIDTH}", "heads=2", "patch_size=4", "embed_dim=16")
    ),
    *("video.num_frames=8", "video.image_size=16", "aggregation.frames_per_block=1", "aggregation.patches_per_block=3"),
    *(f"model.text.{name}" for name in (f"depth={DEPTH}", f"width={WIDTH}", "heads=2", "intermediate=80")),
    *("model.text.vocab_size=200", "model.text.max_positions=80"),
)
SETTINGS = Settings(config=None, overrides=SMALL, device="cpu", threads=1, rounds=1)
TEXT = sections(SETTINGS)[0].text
TOWERS = {"naive": rerank.naive_tower, "peer": rerank.peer_tower}


def strong_pairs(num_texts: int) -> Pairs:
    """Pairs of a model whose weights are so large that every part has an effect."""
    pairs = rerank.make_pairs(SETTINGS, 20, num_texts)
    for parameter in pairs.model.text_encoder.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return pairs


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_scores_are_the_same(name: str) -> None:
    pairs = strong_pairs(5)
    tower = TOWERS[name](pairs, TEXT)
    found = rerank.tower_scores(tower, pairs, SETTINGS, "fp32")
    expected = rerank.our_scores(pairs, SETTINGS, "fp32")
    assert found.shape == (5,) and found.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    one_by_one = [
        pairs.model.match(pairs.tokens, pairs.ids[row : row + 1], pairs.mask[row : row + 1])[0, 1] for row in range(5)
    ]
    torch.testing.assert_close(expected, torch.stack(one_by_one), atol=1e-4, rtol=0)
    other = pairs._replace(tokens=pairs.tokens.flip(-1))
    apart = (rerank.tower_scores(tower, other, SETTINGS, "fp32") - found).abs()
    assert apart.min() > rerank.TOLERANCE["bf16"]


@pytest.mark.parametrize("name", TOWERS)
def test_bf16_scores_are_near(name: str) -> None:
    pairs = rerank.make_pairs(SETTINGS, 20, 5)
    found = rerank.tower_scores(TOWERS[name](pairs, TEXT), pairs, SETTINGS, "bf16")
    expected = rerank.our_scores(pairs, SETTINGS, "bf16")
    rerank.check_same(found, expected, "bf16")
    assert not torch.equal(expected, rerank.our_scores(pairs, SETTINGS, "fp32"))


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_score_is_not_compared(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tower = TOWERS[name]

    def without_video(pairs: Pairs, text: object) -> rerank.Tower:
        tower = make_tower(pairs, text)
        return lambda ids, mask, tokens: tower(ids, mask, tokens.flip(-1))

    strong = strong_pairs(4)
    monkeypatch.setattr(rerank, "make_pairs", lambda *arguments: strong)
    build = getattr(rerank, name)
    assert build(SETTINGS, num_tokens=20, precision=precision)() > 0
    monkeypatch.setattr(rerank, f"{name}_tower", without_video)
    with pytest.raises(AssertionError, match=f"scores of the same pairs are .* apart in {precision}"):
        build(SETTINGS, num_tokens=20, precision=precision)


@pytest.fixture
def projected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Numbers that linear layers made of tokens of the video's width: keys and values."""
    numbers: list[int] = []
    linear = nn.functional.linear

    def counted(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        output = linear(inputs, weight, bias)
        if inputs.shape[-1] == VIDEO_WIDTH:
            numbers.append(output.numel())
        return output

    monkeypatch.setattr(nn.functional, "linear", counted)
    yield numbers


def test_ours_projects_a_video_once_a_batch_and_the_others_once_a_pair(projected: list[int]) -> None:
    keys_and_values = 2 * DEPTH * 20 * WIDTH
    pairs = rerank.make_pairs(SETTINGS, 20, EvaluationConfig().rerank_batch_size + 1)
    rerank.our_scores(pairs, SETTINGS, "fp32")
    assert sum(projected) == keys_and_values * 2
    for make_tower in TOWERS.values():
        projected.clear()
        few = pairs._replace(ids=pairs.ids[:3], mask=pairs.mask[:3])
        rerank.tower_scores(make_tower(few, TEXT), few, SETTINGS, "fp32")
        assert sum(projected) == keys_and_values * 3


def test_the_limit_is_of_what_ours_multiplies() -> None:
    """Shared keys and values; in the last layer only the first token has queries and goes on."""
    products = rerank.executed_products(SETTINGS, num_tokens=20, num_texts=7)
    words, width, wide = 7 * 66, WIDTH, 80
    per_word = 6 * width * width + 2 * width * wide
    last = words * 2 * width * width + 7 * (4 * width * width + 2 * width * wide + 2 * width)
    assert products.linear_macs == words * per_word + last + DEPTH * 2 * 20 * VIDEO_WIDTH * width
    assert products.other_macs == 2 * width * (words + 7) * (66 + 20)


def test_the_limit_is_of_one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    products, device, dtype = [], torch.device("cpu"), torch.bfloat16
    monkeypatch.setattr(rerank, "MachineLimit", lambda *measured: products.append(measured) or (lambda: 256.0))
    assert rerank.limit(SETTINGS, num_tokens=20, precision="bf16")() == 2.0
    assert products == [(rerank.executed_products(SETTINGS, 20, 128), device, dtype)]


def test_cases_are_of_the_encoders_tokens_and_texts_of_64_words() -> None:
    default = Settings(config=None, overrides=(), device="cpu", threads=1, rounds=1)
    arguments = [case.ours.arguments for case in rerank.cases(default)]
    assert arguments == [
        {"num_tokens": tokens, "precision": precision} for precision in ("fp32", "bf16") for tokens in (6273, 1041)
    ]
    for case in rerank.cases(SETTINGS):
        variants = [getattr(case, way) for way in ("ours", "naive", "peer", "limit")]
        assert all(variant.arguments == case.ours.arguments for variant in variants)
        assert len({variant.build for variant in variants}) == 4
    assert {case.ours.arguments["num_tokens"] for case in rerank.cases(SETTINGS)} == {1 + 8 * 16, 1 + 6 * 10}
    pairs = rerank.make_pairs(SETTINGS, 20, 7)
    assert pairs.ids.shape == pairs.mask.shape == (7, 66) and bool(pairs.mask.all()) and bool((pairs.ids > 0).all())
    assert len(pairs.ids.unique(dim=0)) == 7 and pairs.tokens.shape == (1, 20, VIDEO_WIDTH)
    again = rerank.make_pairs(SETTINGS, 20, 7)
    assert torch.equal(again.ids, pairs.ids) and torch.equal(again.tokens, pairs.tokens)


def test_seconds_are_of_one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((10.0, 14.0))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert rerank.seconds_a_pair(lambda: torch.zeros(0), 8) == 0.5


@pytest.mark.usefixtures("in_this_process")
def test_measured_side_by_side() -> None:
    case = rerank.cases(SETTINGS)[-1]
    row = measure(case, SETTINGS)
    assert row.name == "rerank bf16, one pair, 61 video tokens"
    assert min(row.ours_s, row.naive_s, row.peer_s, row.limit_s) > 0
    assert (row.naive_over_ours, row.ours_over_limit) == (row.naive_s / row.ours_s, row.limit_s / row.ours_s)
