"""The numbers of a part: how long its videos and its texts are, and how much of the texts a run would cut off."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import RunConfig
from datasets.pairs import PairTable
from datasets.text import clean_caption, clean_question
from models.parts.tokenizer import TextTokenizer
from scripts.check_dataset.look import Look, Seen
from scripts.check_dataset.parts import DataPart
from scripts.parts.worker_pool import Failure
from tasks.data import clean_up, framing_of, max_words_of
from tasks.vqa import question_tokens

TOKENIZED = 20_000
"""So many texts, drawn from all, are cut into word pieces: enough for shares, and done in seconds."""
NO_LIMIT = 1_000_000
CHUNK = 256


@dataclass(frozen=True)
class Range:
    """The least, the middle and the most of some numbers."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float] | NDArray) -> "Range | None":
        """None of no values."""
        if not len(values):
            return None
        return cls(float(np.min(values)), float(np.median(values)), float(np.max(values)))


@dataclass(frozen=True)
class VideoNumbers:
    """Of the videos, or parts of videos, of a part; lengths are of those that were tried and could be read.

    `short` counts videos with fewer frames than a clip, some of which are then repeated.
    """

    annotated: int
    missing: int
    tried: int
    undecodable: int
    seconds: Range | None
    frames: Range | None
    short: int


@dataclass(frozen=True)
class TextNumbers:
    """Of the texts of a part, cleaned as in a run.

    `shared` are those that more than one video has, word for word: retrieval cannot tell such videos apart. Word
    pieces are of `tokenized` texts, [CLS] and [SEP] counted; None where there is no tokenizer.
    """

    number: int
    per_video: Range | None
    words: Range | None
    max_words: int | None
    cut_by_words: int
    shared: int
    tokenized: int
    pieces: Range | None
    max_tokens: int
    cut_by_tokens: int


def choose_videos(part: DataPart, config: RunConfig, number: int | None, examples: int) -> list[Look]:
    """What to read of a part: `number` of its videos that are there (None: all), the first `examples` among them."""
    there = np.flatnonzero(part.there)
    number = len(there) if number is None else min(number, len(there))
    first, others = there[: min(examples, number)], there[min(examples, number) :]
    sampled = np.random.default_rng(config.seed).choice(others, number - len(first), replace=False)
    chosen = np.sort(np.concatenate([first, sampled]))
    shown = {int(video) for video in first}

    return [
        Look(
            part.name,
            video,
            part.table.file(video),
            *part.table.span(video),
            part.num_frames,
            framing_of(config.video, training=False, image_size=part.image_size),
            part.sampling,
            config.seed,
            keep=video in shown,
            keep_clip=video in shown and config.data.objects is not None,
        )
        for video in chosen.tolist()
    ]


def measure_videos(part: DataPart, results: dict[int, Seen | Failure]) -> VideoNumbers:
    """The numbers of a part's videos; `results` are of those that were read, by position."""
    seen = [result for result in results.values() if isinstance(result, Seen)]
    return VideoNumbers(
        annotated=part.table.num_videos,
        missing=int((~part.there).sum()),
        tried=len(results),
        undecodable=len(results) - len(seen),
        seconds=Range.of([result.seconds for result in seen if result.seconds is not None]),
        frames=Range.of([result.frames for result in seen if result.seconds is not None]),
        # A still image is one frame that is meant to be repeated.
        short=sum(result.frames < part.num_frames for result in seen if result.seconds is not None),
    )


def measure_texts(table: PairTable, config: RunConfig, tokenizer: TextTokenizer | None) -> TextNumbers:
    """The numbers of a part's texts."""
    questions = config.reads_questions
    max_words = max_words_of(config)
    words = np.zeros(len(table), np.int64)
    hashes = np.zeros(len(table), np.int64)
    for position, text in enumerate(table.texts):
        cleaned = clean_question(text, NO_LIMIT) if questions else clean_caption(text, NO_LIMIT)
        words[position], hashes[position] = len(cleaned.split()), hash(cleaned)

    asked = question_tokens(config) if questions else config.data.max_tokens
    max_tokens = min(limit for limit in (asked, config.model.most_tokens) if limit is not None)
    pieces = np.empty(0, np.int64)
    if tokenizer is not None:
        number = min(TOKENIZED, len(table))
        sampled = np.random.default_rng(config.seed).choice(len(table), number, replace=False)
        clean = clean_up(config)
        texts = [clean(table.texts[position]) for position in sampled.tolist()]
        chunks = [texts[start : start + CHUNK] for start in range(0, number, CHUNK)]
        pieces = np.concatenate([_count_pieces(chunk, tokenizer) for chunk in chunks])

    return TextNumbers(
        number=len(table),
        per_video=Range.of(np.bincount(table.text_video, minlength=table.num_videos)),
        words=Range.of(words),
        max_words=max_words,
        cut_by_words=int((words > max_words).sum()) if max_words is not None else 0,
        shared=_shared(hashes, table.text_video),
        tokenized=len(pieces),
        pieces=Range.of(pieces),
        max_tokens=max_tokens,
        cut_by_tokens=int((pieces > max_tokens).sum()),
    )


def _count_pieces(texts: list[str], tokenizer: TextTokenizer) -> NDArray[Any]:
    _, mask = tokenizer(texts, NO_LIMIT)
    return mask.sum(1).numpy()


def _shared(hashes: NDArray, text_video: NDArray) -> int:
    """How many texts also belong to another video; texts are compared by their hashes."""
    if not len(hashes):
        return 0
    _, kind = np.unique(hashes, return_inverse=True)
    of_a_video = np.unique(np.stack([kind, text_video]), axis=1)
    return int((np.bincount(of_a_video[0])[kind] > 1).sum())
