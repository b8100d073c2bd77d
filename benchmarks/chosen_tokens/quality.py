"""Recall of one checkpoint by the share of tokens that texts are matched with, and by how these are chosen.

Ways to choose: `spread` over the video, and `text`, those most like the text, as evaluation does. As controls:
`other text`, those most like another text; `random`, drawn anew for each pair; `first`, those of the beginning.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.load import load_to_evaluate
from configs.schema import RetrievalConfig
from models.parts.ragged import own_tokens
from tasks.chosen_tokens import TokenShare
from tasks.clips import encode_clip
from tasks.data import video_text
from tasks.metrics.retrieval import Direction, both_directions, recalls
from tasks.pair_matching import PairMatcher
from tasks.reranking_rules import rule_named
from tasks.retrieval import RetrievalTask, captions_of
from tasks.shortlists import Shortlists
from tasks.tokenized_texts import TokenizedTexts

CPU = torch.device("cpu")
CONTROLS = ("other text", "random", "first")


class Encoded(NamedTuple):
    """A test set: tokens (1, N, D) of each video, its texts with their embeddings, and both directions."""

    tokens: list[Tensor]
    texts: TokenizedTexts
    embeddings: NDArray
    directions: tuple[Direction, Direction]


class OtherTokens(PairMatcher):
    """A matcher whose texts get as many tokens as ever, by another choice."""

    way = "first"

    def chosen_tokens(self, tokens_1ND: Tensor, texts: NDArray) -> Tensor | None:
        """The places (P, M), ascending, of the tokens that each text attends to."""
        if self.way == "other text":
            # Half of the list away, since the texts of a video stand together.
            return super().chosen_tokens(tokens_1ND, (texts + len(self.texts) // 2) % len(self.texts))

        own_N = own_tokens(tokens_1ND)[0].nonzero().squeeze(1)
        most = max(1, round(self.some.share * len(own_N)))
        if self.way == "first":
            return own_N[:most].expand(len(texts), -1)
        drawn_PN = torch.rand(len(texts), len(own_N)).argsort(dim=1)[:, :most]
        return own_N[drawn_PN.sort(dim=1).values]


def load(checkpoint: Path, overrides: list[str]) -> RetrievalTask:
    """The task of a checkpoint, ready to evaluate."""
    config = load_to_evaluate(RetrievalConfig, None, [f"checkpoint={checkpoint}", *overrides])
    return RetrievalTask(config, CPU).eval()


@torch.no_grad()
def encode(task: RetrievalTask) -> Encoded:
    """Encode the test set; ValueError if a video cannot be read."""
    split, failed = task.evaluated(final=True), list[dict[str, Any]]()
    data = video_text(task.config, split.present, training=False)
    tokens, rows = [], []
    for _, clips in task.each_clip(data, task.evaluation.batch_size, failed):
        encoded = encode_clip(task.model, clips)
        tokens += list(encoded.tokens.split(1))
        rows.append(encoded.embedding.numpy())
    if failed:
        raise ValueError(f"{failed[0]['video']}: cannot be read; a comparison needs all videos")

    captions, truth = captions_of(split, data, list(range(len(tokens))), task.evaluation.same_captions)
    texts = TokenizedTexts(captions, task.tokenize, task.tokenizer.pad_id)
    parts = np.array_split(np.arange(len(texts)), -(-len(texts) // 64))
    embeddings = np.concatenate([task.model.encode_text(*texts.batch(part, CPU)).embedding.numpy() for part in parts])
    return Encoded(tokens, texts, embeddings, both_directions(embeddings, np.concatenate(rows), truth))


@torch.no_grad()
def measure(task: RetrievalTask, encoded: Encoded, way: str, share: float, rules: list[str]) -> dict[str, Any]:
    """Metrics of each rule in both directions, and the CPU milliseconds of each pair."""
    everything = slice(None)
    lists = Shortlists(*(of.shortlist(everything, task.evaluation.rerank) for of in encoded.directions))
    matcher = matcher_of(task, encoded, way, share)
    stored: dict[int, Callable[[], Tensor]] = {
        video: partial(torch.clone, tokens) for video, tokens in enumerate(encoded.tokens)
    }

    torch.manual_seed(task.config.seed)
    start = time.process_time()
    logits = matcher.match_all(stored, lists.texts_of)
    seconds = time.process_time() - start
    for video, own in enumerate(logits):
        lists.put_first(video, own)

    found: dict[str, Any] = {"ms": 1000 * seconds / sum(map(len, logits)), "pairs": sum(map(len, logits))}
    for name in rules:
        metrics: dict[str, float] = {}
        for direction, chosen, values in zip(encoded.directions, lists.chosen, lists.logits, strict=True):
            cosine = direction.cosine(everything)
            scores = rule_named(name).scores(cosine, chosen, values, task.model.similarity_scale)
            metrics |= recalls(direction.best_ranks(everything, scores), direction.name)
        found[name] = metrics
    return found


def by_cosine(encoded: Encoded) -> dict[str, float]:
    """The metrics without reranking."""
    found: dict[str, float] = {}
    for direction in encoded.directions:
        ranks = direction.best_ranks(slice(None), direction.cosine(slice(None)))
        found |= recalls(ranks, direction.name)
    return found


def matcher_of(task: RetrievalTask, encoded: Encoded, way: str, share: float) -> PairMatcher:
    """What matches pairs, by the logit of a match, with tokens that are chosen this way."""
    value, size = rule_named("logit").value, task.evaluation.rerank_batch_size
    if way in CONTROLS:
        some = TokenShare(share, "text")
        control = OtherTokens(task.model, value, encoded.texts, CPU, size, some, encoded.embeddings)
        control.way = way
        return control
    some = TokenShare(share, "text" if way == "text" else "spread")
    return PairMatcher(task.model, value, encoded.texts, CPU, size, some, encoded.embeddings)
