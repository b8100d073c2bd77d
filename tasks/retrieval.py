"""Paragraph-to-video retrieval: fine-tuning, and evaluation by cosine with the best candidates rescored by matching."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from configs.evaluation import SameCaptions
from configs.schema import RetrievalConfig
from datasets.loaders import TrainLoader
from datasets.video_text import VideoTextDataset
from engine.checkpoint_folder import write_lines
from engine.distributed import gather_objects, rank
from tasks.annotations import Split, setting_of
from tasks.base import PairTask
from tasks.chosen_tokens import TokenShare
from tasks.clips import embed_clip, encode_clip
from tasks.data import video_text
from tasks.dual_softmax import LOOKS_AT_ALL, SUFFIX, WITHOUT_IT, dual_softmax
from tasks.matching_by_query import match_by_query, tokens_of_all
from tasks.metrics.relation import Relation
from tasks.metrics.retrieval import Direction, both_directions, recalls
from tasks.outcomes import retrieval_outcomes, with_intervals
from tasks.pair_matching import PairMatcher
from tasks.reranking_rules import rule_named
from tasks.retrieval_files import rankings, submission_files
from tasks.shares import shared_out
from tasks.shortlists import Shortlists
from tasks.token_store import TokenStore
from tasks.tokenized_texts import TEXTS_AT_ONCE, TokenizedTexts
from tasks.windows import embed_videos, encode_windows, windows_of

logger = logging.getLogger(__name__)
NOT_LABELLED = "which text is of which video is not public: the challenge's server gives the metrics of a submission"
Score = Callable[[slice], NDArray]
"""Takes a tile of one direction's queries; returns their scores with all candidates."""


@dataclass(frozen=True)
class EncodedVideos:
    """The readable videos of a test set, in order.

    Attributes:
        embeddings: (V, E), float32.
        positions: each video's place among the present records.
        encoded_by: the process that encoded each video and holds its tokens.
    """

    embeddings: NDArray
    positions: list[int]
    encoded_by: list[int]

    def of_process(self, process: int) -> list[int]:
        """The rows of the videos that one process encoded."""
        return [video for video, encoded_by in enumerate(self.encoded_by) if encoded_by == process]


class RetrievalTask(PairTask):
    """Retrieval, whatever the system: fine-tuning on pairs, and evaluation in both directions."""

    def __init__(self, config: RetrievalConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.best_metric = config.evaluation.best_metric
        self.evaluation = config.evaluation
        self.rule = rule_named(config.evaluation.rerank_rule)

    def build_train_loader(self) -> TrainLoader:
        """The training set in batches; `ValueError` if the best weights cannot be chosen."""
        loader = super().build_train_loader()
        if not self.split("eval").annotations.labelled:
            setting = setting_of(self.config, "eval")
            raise ValueError(f"{setting}: its pairs are not public, so it cannot choose the best weights; name another")
        return loader

    def evaluate(self, final: bool) -> dict[str, Any]:
        """Metrics of both directions (`_cosine`: before reranking), with the numbers of videos and texts.

        Missing and unreadable videos are skipped with their texts, counted, and listed under `failed`. If the pairs of
        a set are not public there are no metrics; the scores of all texts and videos are written to files instead.
        """
        split = self.evaluated(final)
        windows = windows_of(self.evaluation)
        data = video_text(self.config, split.present, training=False, windows=windows)
        failed: list[dict[str, str]] = []
        assert self.config.output_dir is not None, "the entry script names the output folder"

        with TokenStore(Path(self.config.output_dir), len(data)) as tokens:
            videos = self._encode_videos(data, tokens, failed)

            captions, truth = captions_of(split, data, videos.positions, self.evaluation.same_captions)
            description = self.described(final, len(videos.positions), len(captions), failed)
            if windows is not None:
                description["windows"] = windows._asdict()
            if self.evaluation.rerank_tokens < 1:
                description["rerank_tokens"] = TokenShare.of(self.evaluation)._asdict()

            texts = TokenizedTexts(captions, self.tokenize, self.tokenizer.pad_id)
            directions = both_directions(self._embed_texts(texts), videos.embeddings, truth)
            cosine = [direction.cosine for direction in directions]
            scores = self._reranked(directions, texts, videos, tokens) if self.evaluation.rerank > 0 else cosine

        if not split.annotations.labelled:
            t2v, v2t = (all_scores(*of_direction) for of_direction in zip(directions, scores, strict=True))
            files = submission_files(split, videos.positions, t2v, v2t)
            note = f"{NOT_LABELLED}{WITHOUT_IT if self.evaluation.dual_softmax else ''}"
            return {"metrics": {}, **description, "note": note, "files": files}

        ranks = {"": ranks_of(directions, scores), "_cosine": ranks_of(directions, cosine)}
        if self.evaluation.dual_softmax:
            temperature = self.evaluation.dual_softmax_temperature
            ranks[SUFFIX] = ranks_of(directions, dual_softmax(directions, 1 / temperature))
            description["dual_softmax"] = {"temperature": temperature, "note": LOOKS_AT_ALL}
            logger.info("dual softmax at temperature %g: %s", temperature, LOOKS_AT_ALL)

        if self.evaluation.predictions:
            names = [split.present[position].video for position in videos.positions]
            best = best_videos(directions[0], scores[0], self.evaluation.predictions)
            description["files"] = {"predictions.jsonl": partial(write_lines, rankings(captions, names, *best))}

        found: dict[str, float] = {}
        for suffix, of_both in ranks.items():
            found |= metrics(of_both, suffix)

        shown = [split.present[position] for position in videos.positions]
        sets = retrieval_outcomes(ranks, captions, truth, shown, self.config.data.root)
        return with_intervals({"metrics": found, **description}, sets)

    def _encode_videos(self, data: VideoTextDataset, tokens: TokenStore, failed: list[dict[str, str]]) -> EncodedVideos:
        """Encode each video once, split over the processes; `tokens` stores this process's share for matching."""
        own_positions: list[int] = []
        rows: list[NDArray] = [np.zeros((0, self.model.embed_dim), np.float32)]
        for positions, clips in self.each_clip(data, self.evaluation.batch_size, failed):
            own_positions += positions
            if data.windows is not None:
                # Videos have many windows: encode no more of them at once than videos otherwise.
                parts = clips.pixels.split(self.evaluation.batch_size)
                rows += [encode_windows(self.model, part).cpu().numpy() for part in parts]
                continue

            if self.evaluation.rerank == 0:
                rows.append(embed_clip(self.model, clips).cpu().numpy())
                continue

            encoded = encode_clip(self.model, clips)
            rows.append(encoded.embedding.cpu().numpy())
            tokens.add(positions, encoded.tokens)

        own_rows = np.concatenate(rows)
        if data.windows is not None:
            own_positions, own_rows = embed_videos(self.model, own_rows, own_positions)

        # Every process gets all embeddings, and learns which process holds the tokens of each video.
        encoded_by: dict[int, int] = {}
        embeddings: dict[int, NDArray] = {}
        for process, (positions, of_process) in enumerate(gather_objects((own_positions, own_rows))):
            encoded_by.update(dict.fromkeys(positions, process))
            embeddings.update(zip(positions, of_process, strict=True))

        order = sorted(embeddings)
        return EncodedVideos(
            embeddings=np.stack([embeddings[position] for position in order]) if order else np.zeros((0, 1)),
            positions=order,
            encoded_by=[encoded_by[position] for position in order],
        )

    def _embed_texts(self, texts: TokenizedTexts) -> NDArray:
        """Embeddings (T, E) of all texts, split over the processes in batches of similar lengths."""
        order = texts.by_length(np.arange(len(texts)))
        parts = [order[first : first + TEXTS_AT_ONCE] for first in range(0, len(order), TEXTS_AT_ONCE)]

        def embed(part: NDArray) -> NDArray:
            return self.model.encode_text(*texts.batch(part, self.device)).embedding.cpu().numpy()

        return shared_out(parts, embed)[np.argsort(order)]

    def _reranked(
        self,
        directions: tuple[Direction, Direction],
        texts: TokenizedTexts,
        videos: EncodedVideos,
        tokens: TokenStore,
    ) -> list[Score]:
        """The scores of both directions, the best candidates of each query rescored by `evaluation.rerank_rule`.

        Each pair is matched once, for both directions, by the process that holds its video's tokens; or query by
        query, if the rule says so.
        """
        # The best candidates of each query by cosine. Processes share the queries.
        most = self.evaluation.rerank
        t2v, v2t = (all_scores(direction, partial(direction.shortlist, most=most)) for direction in directions)
        lists = Shortlists(t2v, v2t)

        if self.rule.by_query:
            own = [videos.positions[video] for video in videos.of_process(rank())]
            everyone = tokens_of_all(tokens, own, videos.positions)
            by_query = match_by_query(self.model, self.rule, texts, everyone, lists.chosen, self.device)
            return self._scores(directions, lists.chosen, by_query)

        # Match the pairs of this process's videos.
        matcher = PairMatcher(
            self.model, self.rule.value, texts, self.device, self.evaluation.rerank_batch_size,
            some=TokenShare.of(self.evaluation), embeddings=directions[0].queries,
        )  # fmt: skip
        stored = {video: partial(tokens.read, videos.positions[video]) for video in videos.of_process(rank())}
        matched = [np.zeros(0, np.float32), *matcher.match_all(stored, lists.texts_of)]

        # Each process's values lie video by video: put them into the shortlists of both directions.
        for process, values in enumerate(gather_objects(np.concatenate(matched))):
            for video in videos.of_process(process):
                values = lists.put_first(video, values)

        return self._scores(directions, lists.chosen, lists.logits)

    def _scores(
        self,
        directions: tuple[Direction, Direction],
        chosen: tuple[NDArray, NDArray],
        values: Sequence[NDArray],
    ) -> list[Score]:
        """The scores of both directions, from the chosen candidates of all queries and their values."""
        return [partial(self._reranked_scores, *parts) for parts in zip(directions, chosen, values, strict=True)]

    def _reranked_scores(self, direction: Direction, chosen: NDArray, values: NDArray, tile: slice) -> NDArray:
        """Scores (q, N) of a tile of queries, with the `chosen` candidates (Q, k) rescored by their `values` (Q, k)."""
        cosine = direction.cosine(tile)
        return self.rule.scores(cosine, chosen[tile], values[tile], self.model.similarity_scale)


def captions_of(
    split: Split, data: VideoTextDataset, positions: list[int], same_captions: SameCaptions
) -> tuple[list[str], Relation]:
    """The texts to score, and which videos at `positions` belong to each; none belong if the pairs are not public.

    With `same_captions` "together", a caption that several videos share word for word becomes one text.
    """
    if not split.annotations.labelled:
        captions = [data.clean(caption) for record in split.annotations.records for caption in record.captions]
        return captions, Relation.of_one_each(np.full(len(captions), -1), len(positions))

    video_at = {position: video for video, position in enumerate(positions)}
    captions, texts, videos = [], [], []
    text_of_caption: dict[str, int] = {}
    for caption, position in zip(data.table.texts, data.caption_video, strict=True):
        if position not in video_at:  # it could not be read
            continue

        # A caption that occurred before is the same text, if they are to be together.
        text = len(captions)
        if same_captions == "together":
            text = text_of_caption.setdefault(caption, text)
        if text == len(captions):
            captions.append(data.clean(caption))
        texts.append(text)
        videos.append(video_at[position])

    return captions, Relation.of_pairs(np.array(texts), np.array(videos), len(captions), len(positions))


def all_scores(direction: Direction, score: Score) -> NDArray:
    """What `score` gives for all queries of a direction; each process computes its share of them."""
    return shared_out(direction.tiles(), score)


def metrics(ranks: dict[str, NDArray], suffix: str = "") -> dict[str, float]:
    """All metrics of the ranks (Q,) of both directions, by direction."""
    found: dict[str, float] = {}
    for direction, of_queries in ranks.items():
        found |= recalls(of_queries, direction, suffix)
    return found


def ranks_of(directions: tuple[Direction, Direction], scores: Sequence[Score]) -> dict[str, NDArray]:
    """The ranks (Q,) of both directions' queries, by direction; each process ranks its share of the queries."""
    return {
        direction.name: all_scores(direction, partial(_best_ranks, direction, score))
        for direction, score in zip(directions, scores, strict=True)
    }


def best_videos(t2v: Direction, score: Score, most: int) -> tuple[NDArray, NDArray]:
    """The `most` best videos of each text, best first, (T, k), and their scores (T, k); ties go to the first video."""
    most = min(most, len(t2v.candidates))

    def best_of(tile: slice) -> NDArray:
        scores = score(tile)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
        return np.stack([order, np.take_along_axis(scores, order, axis=1)], axis=2)

    found = all_scores(t2v, best_of)
    return found[..., 0].astype(np.int64), found[..., 1]


def _best_ranks(direction: Direction, score: Score, tile: slice) -> NDArray:
    return direction.best_ranks(tile, score(tile))
