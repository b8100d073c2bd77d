"""What is made of videos that keep different numbers of tokens: in a batch as alone."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from configs.aggregation import AggregationConfig
from configs.models.umt import SplitTextConfig, UMTConfig
from inference.features.extract import arrays_of
from inference.pictures.trace import trace_video
from models.parts.ragged import joined_rows
from models.umt.build import AnsweringModel, RetrievalModel
from tests.models import tiny
from tests.models.runs import BY_SHARE, BY_THRESHOLD, VIDEO, WEIGHED, clips_of_runs

SPLIT = SplitTextConfig(
    vocab_size=40, depth=4, width=32, heads=2, intermediate=48, max_positions=16, dropout=0.0, fusion_layer=2
)
UMT = UMTConfig(depth=2, width=32, heads=2, patch_size=tiny.PATCH, pooling="all", embed_dim=8, text=SPLIT)
SYSTEMS = ("testa joint", "testa divided", "umt")


def of_testa(aggregation: AggregationConfig, attention: str = "joint") -> nn.Module:
    return tiny.vision_language("tied", aggregation=aggregation, video=VIDEO, attention=attention)


def umt(aggregation: AggregationConfig, use: str = "retrieval") -> nn.Module:
    torch.manual_seed(0)
    sections = (UMT, VIDEO, aggregation)
    model = RetrievalModel(*sections)
    if use == "answers":
        model = AnsweringModel(*sections, sep_id=tiny.SEP, label_smoothing=0.0)
    tiny.randomise(model)
    return model.eval()


def model_of(system: str, aggregation: AggregationConfig) -> nn.Module:
    return umt(aggregation) if system == "umt" else of_testa(aggregation, system.removeprefix("testa "))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("aggregation", [BY_THRESHOLD, WEIGHED, BY_SHARE], ids=["threshold", "weighed", "share"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_embeddings_and_matches(system: str, aggregation: AggregationConfig) -> None:
    model, video = model_of(system, aggregation), clips_of_runs()
    ids, mask = tiny.texts((9, 4, 6))
    together = model.encode_video(video)
    memory = model.project(together.tokens)
    turned = torch.tensor([2, 0, 1])
    found = {
        "own": model.match(together.tokens, ids, mask),
        "about": model.match(together.tokens, ids, mask, turned),
        "memory": model.match_groups([(3, memory)], ids, mask),
        "rows": model.match_groups([(3, memory.rows(turned))], ids, mask),
    }
    for row in range(3):
        text = ids[row : row + 1], mask[row : row + 1]
        alone = model.encode_video(video[row : row + 1])
        close(together.embedding[row], alone.embedding[0])
        own = model.match(alone.tokens, *text)[0]
        close(found["own"][row], own)
        close(found["memory"][row], own)

        other = model.encode_video(video[turned[row], None])
        turned_alone = model.match(other.tokens, *text)[0]
        close(found["about"][row], turned_alone)
        close(found["rows"][row], turned_alone)

    # uint8 pixels decide as their normalised ones do.
    pixels = (video * 40 + 128).clamp(0, 255).byte()
    features = model.encode_video(pixels)
    assert (features.mask is None) == (aggregation.keep is not None)
    close(features.embedding[:1], model.encode_video(pixels[:1]).embedding)


@torch.no_grad()
def test_weighed_lengths_pool_by_length() -> None:
    video = clips_of_runs()[1:2]
    for system in SYSTEMS:
        model = model_of(system, WEIGHED)
        traced = model.trace_video((video * 40 + 128).clamp(0, 255).byte())
        size, tokens = traced.size, traced.tokens
        mean = (tokens * size.unsqueeze(-1)).sum(dim=1) / size.sum(dim=1, keepdim=True)
        if system == "umt":
            mean = model.vision_encoder.pool_norm(mean)
        expected = nn.functional.normalize(model.vision_proj(mean), dim=-1)
        close(model.encode_video((video * 40 + 128).clamp(0, 255).byte()).embedding, expected)


@torch.no_grad()
def test_captions_and_questions_of_testa() -> None:
    model, video = of_testa(BY_THRESHOLD), clips_of_runs()
    ids, mask = tiny.texts((9, 4, 6))
    tokens = model.video_tokens(video)
    about = torch.tensor([2, 0, 1])
    losses, states = model.context_loss(tokens, ids, mask), model.ground_text(tokens, ids, mask)
    of_memory = model.text_loss(model.project(tokens), ids, mask)
    turned = model.ground_text(tokens, ids, mask, about)
    written = model.generate(tokens, max_tokens=8)
    for row in range(3):
        length = int(mask[row].sum())
        text = ids[row : row + 1, :length], mask[row : row + 1, :length]
        alone = model.video_tokens(video[row : row + 1])
        close(losses[row], model.context_loss(alone, *text)[0])
        close(of_memory[row], losses[row])
        close(states[row, :length], model.ground_text(alone, *text)[0])
        other = model.video_tokens(video[about[row], None])
        close(turned[row, :length], model.ground_text(other, *text)[0])
        own = model.generate(alone, max_tokens=8)[0]
        assert written[row, : len(own)].tolist() == own.tolist()


@torch.no_grad()
def test_questions_of_umt() -> None:
    model, video = umt(BY_THRESHOLD, "answers"), clips_of_runs()
    ids, mask = tiny.texts((9, 4, 6))
    about = torch.tensor([2, 0, 1])
    tokens = model.video_tokens(video)
    states, turned = model.ground_text(tokens, ids, mask), model.ground_text(tokens, ids, mask, about)
    for row in range(3):
        length = int(mask[row].sum())
        text = ids[row : row + 1, :length], mask[row : row + 1, :length]
        close(states[row, :length], model.ground_text(model.video_tokens(video[row : row + 1]), *text)[0])
        close(turned[row, :length], model.ground_text(model.video_tokens(video[about[row], None]), *text)[0])


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_trace_tells_what_stands_for_each_patch(system: str) -> None:
    model, pixels = model_of(system, BY_THRESHOLD), (clips_of_runs()[1] * 40 + 128).clamp(0, 255).byte()
    trace = trace_video(model, pixels)
    tower = model.vision_encoder if system == "umt" else model.visual_encoder
    kept = tower.kept_patches(pixels[None])
    assert all((held == kept.origins[0].numpy()).all() for held in trace.blocks)
    assert len(trace.tokens) == kept.counts[0] + (system != "umt")
    (similarity,) = trace.similarities
    assert similarity.merged is not None and similarity.merged > 0.7  # patches that did not change, apart from time


def test_tokens_of_several_batches_are_padded_and_not_stored_as_an_array() -> None:
    short, long = torch.ones(1, 2, 3), torch.ones(2, 4, 3)
    joined = joined_rows([short, long])
    assert joined.any(dim=-1).tolist() == [[True, True, False, False], [True] * 4, [True] * 4]

    config = SimpleNamespace(aggregation=BY_THRESHOLD, task="retrieval")
    model = cast(Any, SimpleNamespace(abilities={"encode_video"}, config=config, source=""))
    assert arrays_of(model, tokens=False) == ("embeddings",)
    with pytest.raises(ValueError, match="--tokens: each video keeps a number of tokens of its own"):
        arrays_of(model, tokens=True)
