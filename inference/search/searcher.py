"""Find the videos nearest to a text: rank by cosine, then rerank the best ones with the matching head."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from torch import Tensor

from engine.hub import SCHEME
from inference.api import TrainedModel, load_model
from inference.search.frames import best_frames
from inference.search.index import Engine, VideoIndex
from inference.search.scale import EVERYDAY_CAPTIONS, MATCHES, even_cosine, probability_of_cosine
from inference.search.where import Where
from inference.trained import CAN_DO
from inference.unread_words import unread_words
from tasks.base import progress_bar
from tasks.reranking_rules import Rule, rule_named

logger = logging.getLogger(__name__)
BEST_FRAMES = 3
VIDEOS_MEASURED = 1024
"""In larger indices, this many evenly spaced videos decide which cosine means a match."""


@dataclass(frozen=True)
class Hit:
    """One search result: a video, or the part of it from `start` to `end` in seconds.

    Attributes:
        score: by the rule that evaluation reranks with (`evaluation.rerank_rule`), or the cosine if it was not matched.
        cosine: of the embeddings of text and video.
        match_logit: the matching head's logit; None if the video was not reranked.
        probability: that the text describes the video, on a scale shared by all videos and texts: from the matching
            head, or from the cosine if no video was reranked (`inference.search.scale`); None if neither is known.
        frames: (seconds from the start of the file, similarity) of the best matching frames, best first.
        problem: one line saying why the file could not be read; it then has neither logit nor frames.
    """

    video: str
    start: float | None
    end: float | None
    score: float
    cosine: float
    match_logit: float | None = None
    probability: float | None = None
    frames: tuple[tuple[float, float], ...] = ()
    problem: str | None = None


RERANK_RULE = "logit_plus_cosine"
"""The rule for checkpoints whose task has no evaluation."""


class Searcher:
    """An index with the model that encoded its videos.

    Raises ValueError for a model with other weights or settings.
    """

    def __init__(self, index: VideoIndex, model: TrainedModel) -> None:
        index.check_model(model)
        self.index, self.model = index, model

    @classmethod
    def open(cls, folder: Path, checkpoint: str | None = None, engine: Engine | None = None) -> Self:
        """Open the index in a folder with its own checkpoint; `checkpoint` gives the new place of one that moved.

        `engine` is as in `VideoIndex.open`.
        """
        index = VideoIndex.open(folder, engine)
        if checkpoint is None and not (index.checkpoint.startswith(SCHEME) or Path(index.checkpoint).exists()):
            raise ValueError(f"{folder}: its checkpoint {index.checkpoint} is gone; say with --checkpoint where it is")
        config = None if index.config is None else Path(index.config)
        return cls(index, load_model(checkpoint or index.checkpoint, *index.overrides, config=config))

    @property
    def can_rerank(self) -> bool:
        """Whether the checkpoint has a matching head."""
        return "match" in self.model.abilities

    def query(
        self,
        text: str,
        top: int = 10,
        rerank: int | None = None,
        frames: int = BEST_FRAMES,
        check: Callable[[], None] = lambda: None,
        where: str = "",
    ) -> list[Hit]:
        """The `top` videos for a text, best first.

        All videos are ranked by cosine, and the first `rerank` of them again by the rule that the checkpoint is
        evaluated with. A file that cannot be read keeps the place that its cosine gave it, and says its `problem`.

        Args:
            rerank: by default `top`, or 0 where the checkpoint has no matching head.
            frames: how many of the best frames of each hit to look for; 0 opens no file but to rerank.
            check: called before each video is read; what it raises ends the search.
            where: a filter on the videos, such as "folder=lectures duration>600" (`inference/search/where.py`).

        Raises:
            ValueError: the text is empty, the filter cannot be read, or the checkpoint cannot rerank.
        """
        if not text.strip():
            raise ValueError("the text to search for is empty; give a phrase or a paragraph")
        if rerank is None:
            rerank = top if self.can_rerank else 0
        if rerank and not self.can_rerank:
            raise ValueError(
                f"{self.model.source}: has no matching head to rerank with; give --rerank 0, or index "
                f"with {CAN_DO['match']}"
            )
        if top < 1 or rerank < 0 or frames < 0:
            raise ValueError("top, rerank and frames: must be 1 or more, 0 or more, and 0 or more")

        conditions = Where.parse(where)
        embedding = self.model.encode_text(text)
        assert isinstance(embedding, Tensor)
        hits = self._nearest(embedding, max(top, rerank), conditions, with_probability=not rerank)
        read = self._each_read(hits[:rerank], Asked(text, embedding, frames, check), "reranking")
        matched = in_order(self._rescored(read))

        rest = hits[rerank:top]
        if frames:
            rest = self._each_read(rest, Asked(None, embedding, frames, check), "frames")

        return (matched + rest)[:top]

    def unread(self, text: str) -> str | None:
        """A sentence for the user if the model does not read the whole text; None if it does."""
        return unread_words(self.model, text)

    def _nearest(self, embedding: Tensor, most: int, where: Where | None, with_probability: bool) -> list[Hit]:
        rows, cosines = self.index.search(embedding.numpy(), most, where)
        found = []
        for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True):
            clip = self.index.clips[row]
            found.append(Hit(clip.video, clip.start, clip.end, cosine, cosine))
        if not with_probability:
            return found

        probabilities = probability_of_cosine(cosines, self._even_cosine, self._temperature)
        return [
            replace(hit, probability=probability)
            for hit, probability in zip(found, probabilities.tolist(), strict=True)
        ]

    @property
    def _temperature(self) -> float:
        return 1 / self.model.model.similarity_scale

    @cached_property
    def _even_cosine(self) -> float:
        """The `even_cosine` of the index, measured on a sample of its videos."""
        step = -(-len(self.index.embeddings) // VIDEOS_MEASURED)
        everyday = self.model.encode_text(EVERYDAY_CAPTIONS).numpy()
        return even_cosine(self.index.embeddings[::step] @ everyday.T, self._temperature)

    def _each_read(self, hits: Sequence[Hit], asked: "Asked", description: str) -> list[Hit]:
        """The hits with what was asked of them, or with a `problem` if the file cannot be read."""
        looked = []
        for hit in progress_bar(hits, description):
            asked.check()
            try:
                looked.append(self._read(hit, asked))
            except ValueError as error:  # only an unreadable file is left: all other errors were raised before
                logger.warning("%s", error)
                looked.append(replace(hit, problem=str(error)))
        return looked

    def _read(self, hit: Hit, asked: "Asked") -> Hit:
        encoded = self.model.encode_tokens(hit.video, hit.start, hit.end)
        if asked.frames:
            of_hit = (encoded, hit.video, hit.start, hit.end)
            hit = replace(hit, frames=best_frames(self.model, *of_hit, asked.embedding, asked.frames))
        if asked.text is not None:
            logits = self.model.match_logits(encoded, asked.text)
            probability = float(logits.softmax(dim=1)[0, 1])
            value = float(self._rule.value(logits)[0])
            hit = replace(hit, match_logit=float(logits[0, 1]), score=value, probability=probability)
        return hit

    @cached_property
    def _rule(self) -> Rule:
        evaluation = getattr(self.model.config, "evaluation", None)
        name = getattr(evaluation, "rerank_rule", RERANK_RULE)
        rule = rule_named(name)
        if rule.by_query:
            raise ValueError(
                f"evaluation.rerank_rule: {name} matches all candidates of a text together, and search matches them "
                "one by one; give --rerank 0"
            )
        return rule

    def _rescored(self, hits: Sequence[Hit]) -> list[Hit]:
        """Turn the value that the rule took from each pair's logits into the rule's score."""
        matched = [hit for hit in hits if hit.match_logit is not None]
        if not matched:
            return list(hits)

        # A rule scores tiles of queries: here one query, all of whose candidates are chosen.
        cosine = np.array([[hit.cosine for hit in matched]], np.float32)
        values = np.array([[hit.score for hit in matched]])
        chosen = np.arange(len(matched))[None]
        scores = self._rule.scores(cosine, chosen, values, self.model.model.similarity_scale)[0].tolist()

        rescored = iter(replace(hit, score=score) for hit, score in zip(matched, scores, strict=True))
        return [hit if hit.match_logit is None else next(rescored) for hit in hits]


@dataclass(frozen=True)
class Asked:
    """What to find out about a video: its best `frames` for `embedding`, and how well `text`, if given, matches it.

    `check` is called before each video, and may raise to end the search.
    """

    text: str | None
    embedding: Tensor
    frames: int
    check: Callable[[], None]


def best_probability(hits: Sequence[Hit]) -> float | None:
    """The largest probability among the hits; None if no hit has one."""
    return max((hit.probability for hit in hits if hit.probability is not None), default=None)


def nothing_matches(hits: Sequence[Hit]) -> bool:
    """Whether every hit is more likely no match."""
    best = best_probability(hits)
    return best is not None and best < MATCHES


def in_order(hits: Sequence[Hit]) -> list[Hit]:
    """Sort the hits by score; hits without a matching logit keep their places."""
    matched = iter(sorted((hit for hit in hits if hit.match_logit is not None), key=lambda hit: -hit.score))
    return [hit if hit.match_logit is None else next(matched) for hit in hits]
