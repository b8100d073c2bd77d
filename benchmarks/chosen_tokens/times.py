"""Milliseconds to match a pair at full size, by the share of a video's tokens that each text attends to.

Weights, tokens and texts are random, and no video is encoded. All shares take turns in one process.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.rerank import TEXT_TOKENS, make_testa
from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.testa import TestaConfig
from configs.models.umt import UMTConfig
from engine.host_memory import keep_freed_memory
from models.protocols import StateMatcher
from models.umt.build import RetrievalModel
from tasks.base import progress_bar
from tasks.chosen_tokens import TokenShare
from tasks.pair_matching import PairMatcher, TextStates
from tasks.reranking_rules import logit_of
from tasks.tokenized_texts import TokenizedTexts

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Video:
    """A model's text tower, and how many tokens a video has for it."""

    make_model: Callable[[], Any]
    tokens: int


def testa() -> Any:
    """TESTA-B: twelve layers that attend to the video, each text read for each video."""
    return make_testa(TestaConfig())


def umt() -> Any:
    """UMT-B: texts are read once, and three layers attend to the video."""
    # Nothing is encoded, so the video encoder is as small as one can be.
    video = VideoConfig(num_frames=1, image_size=16)
    return RetrievalModel(UMTConfig(depth=1, pooling="all"), video, AggregationConfig())


VIDEOS = {
    "TESTA-B, 32 frames merged": Video(testa, 1041),
    "UMT-B, 12 frames": Video(umt, 2352),
    "TESTA-B, 96 frames merged": Video(testa, 4801),
}
"""The tokens are those of didemo_f32, didemo_f96 and UMT's msrvtt_b16."""


@torch.no_grad()
def measure(video: Video, ways: list[TokenShare], num_texts: int, rounds: int) -> list[dict[str, Any]]:
    """The median, least and most milliseconds a pair in each way; a round takes so long that none is to warm up."""
    torch.manual_seed(0)
    model = video.make_model().eval()
    tokens = torch.randn(1, video.tokens, model.vision_proj.in_features)
    ids = torch.randint(1000, 30000, (num_texts, TEXT_TOKENS))
    texts = TokenizedTexts(["a text"] * num_texts, lambda _: (ids, torch.ones_like(ids)), 0)
    embeddings = torch.randn(num_texts, model.embed_dim).numpy()
    keep_freed_memory()

    # Texts whose states serve all videos are read once, which is no part of the time.
    everyone = np.arange(num_texts)
    states = TextStates(model, texts, everyone, CPU) if isinstance(model, StateMatcher) else None
    matchers = [PairMatcher(model, logit_of, texts, CPU, 256, some, embeddings) for some in ways]
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in progress_bar(range(rounds), "rounds"):
        for matcher, own in zip(matchers, seconds, strict=True):
            start = time.process_time()
            matcher.match(tokens, everyone, states)
            own.append(time.process_time() - start)

    rows: list[dict[str, Any]] = []
    for some, own in zip(ways, seconds, strict=True):
        of_pair = [1000 * second / num_texts for second in own]
        rows.append({**some._asdict(), "ms": statistics.median(of_pair), "least": min(of_pair), "most": max(of_pair)})
    return rows
