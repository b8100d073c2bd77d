"""Paragraph-to-video retrieval: fine-tuning, and evaluation by cosine with the best rescored by matching."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.schema import RetrievalConfig
from datasets.loaders import TrainLoader
from datasets.records import VideoTextRecord
from engine.distributed import gather_objects, rank, world_size
from tasks.base import PairTask, progress_bar
from tasks.data import setting_of, video_text
from tasks.metrics import submission
from tasks.metrics.retrieval import both_directions, rerank, shortlist

logger = logging.getLogger(__name__)
TEXTS_AT_ONCE = 256
NOT_LABELLED = "which text is of which video is not public: the challenge's server gives the metrics of a submission"


@dataclass(frozen=True)
class EncodedSet:
    """A test set's embeddings, and the video tokens of this process.

    Attributes:
        videos: (V, E) of all videos that could be read, in order; texts: (N, E) of all texts that are scored.
        readable: of each of these videos its position among those that are there.
        text_video: (N,) the row in `videos` of each text; of no meaning where the pairs are not known.
        captions: the N texts.
        own_tokens: video tokens (1, M, D) by row in `videos`, of those that this process encoded.
        failed: files that this process could not read, with their reasons.
    """

    videos: NDArray
    texts: NDArray
    readable: list[int]
    text_video: NDArray
    captions: list[str]
    own_tokens: dict[int, Tensor]
    failed: list[dict[str, str]]


class RetrievalTask(PairTask):
    """TESTA's fine-tuning for retrieval: positives are all pairs of one video, no decoder."""

    def __init__(self, config: RetrievalConfig, device: torch.device) -> None:
        super().__init__(config, device, positives="index")
        self.best_metric = config.evaluation.best_metric
        self.evaluation = config.evaluation

    def build_train_loader(self) -> TrainLoader:
        """The training set in batches; `ValueError` if the best weights cannot be chosen."""
        loader = super().build_train_loader()
        if not self.split("eval").annotations.labelled:
            setting = setting_of(self.config, "eval")
            raise ValueError(f"{setting}: its pairs are not public, so it cannot choose the best weights; name another")
        return loader

    def evaluate(self, final: bool) -> dict[str, Any]:
        """Metrics of both directions, `_cosine` before reranking, with how many videos and texts they are of.

        Videos that are not there or cannot be read are left out with their texts, counted, and named under `failed`.
        Of a set whose pairs are not public there are no metrics, but the scores of all texts and videos, as files.
        """
        encoded = self._encode_set(final)
        description = self.described(final, len(encoded.videos), len(encoded.captions), encoded.failed)
        cosine = encoded.texts @ encoded.videos.T  # (texts, videos)
        t2v, v2t = self._rescore(encoded, cosine) if self.evaluation.rerank > 0 else (cosine, cosine.T)
        if not description["labelled"]:
            return {"metrics": {}, **description, "note": NOT_LABELLED, "files": self._submission(encoded, t2v, v2t)}
        return {
            "metrics": both_directions(t2v, v2t, encoded.text_video)
            | both_directions(cosine, cosine.T, encoded.text_video, "_cosine"),
            **description,
        }

    def _submission(self, encoded: EncodedSet, t2v: NDArray, v2t: NDArray) -> dict[str, Callable[[Path], None]]:
        """Scores of all annotated texts and videos, in the order of the annotations, as the challenge takes them."""
        split = self.evaluated(final=True)
        place = {id(record): number for number, record in enumerate(split.annotations.records)}
        columns = [place[id(split.present[position])] for position in encoded.readable]
        num_videos = len(split.annotations.records)
        if len(columns) < num_videos:
            logger.warning(
                "%d of %d videos have no scores: in the submission they come last for every text",
                num_videos - len(columns),
                num_videos,
            )
        t2v, v2t = submission.with_all_videos(t2v, v2t, columns, num_videos)
        return {
            "submission.zip": partial(submission.write_zip, t2v),
            "t2v_scores.npy": partial(submission.write_array, t2v),
            "v2t_scores.npy": partial(submission.write_array, v2t),
        }

    def _encode_set(self, final: bool) -> EncodedSet:
        """Each video and each text once, shared out over the processes."""
        split = self.evaluated(final)
        data = video_text(self.config, split.present, training=False)
        embeddings: dict[int, NDArray] = {}
        tokens: dict[int, Tensor] = {}
        failed: list[dict[str, str]] = []
        for positions, videos in self.each_video(data, self.evaluation.batch_size, failed):
            encoded = self.model.encode_video(videos)
            for row, position in enumerate(positions):
                embeddings[position] = encoded.embedding[row].cpu().numpy()
                if self.evaluation.rerank > 0:
                    tokens[position] = encoded.tokens[row : row + 1].cpu()
        embeddings = {position: row for part in gather_objects(embeddings) for position, row in part.items()}
        readable = sorted(embeddings)
        place = {position: row for row, position in enumerate(readable)}
        if split.annotations.labelled:
            pairs = zip(data.captions, data.caption_video, strict=True)
            kept = [(caption, place[video]) for caption, video in pairs if video in place]
        else:
            kept = [(caption, -1) for caption in all_captions(split.annotations.records, data.clean)]
        captions = [caption for caption, _ in kept]
        return EncodedSet(
            videos=np.stack([embeddings[position] for position in readable]) if readable else np.zeros((0, 1)),
            texts=self._embed_texts(captions) if readable else np.zeros((0, 1)),
            readable=readable,
            text_video=np.array([video for _, video in kept]),
            captions=captions,
            own_tokens={place[position]: kept_tokens for position, kept_tokens in tokens.items()},
            failed=failed,
        )

    def _embed_texts(self, captions: list[str]) -> NDArray:
        parts: dict[int, NDArray] = {}
        for first in range(rank() * TEXTS_AT_ONCE, len(captions), world_size() * TEXTS_AT_ONCE):
            ids, mask = self.tokenize(captions[first : first + TEXTS_AT_ONCE])
            parts[first] = self.model.encode_text(ids, mask).embedding.cpu().numpy()
        gathered = {first: part for rows in gather_objects(parts) for first, part in rows.items()}
        return np.concatenate([gathered[first] for first in sorted(gathered)])

    def _rescore(self, encoded: EncodedSet, cosine: NDArray) -> tuple[NDArray, NDArray]:
        """Scores (texts, videos) and (videos, texts) with the best of each direction rescored, each pair once.

        A pair is scored by the process that has its video's tokens, video by video: matching logit plus cosine.
        """
        for_text, for_video = shortlist(cosine, self.evaluation.rerank), shortlist(cosine.T, self.evaluation.rerank).T
        wanted = for_text | for_video
        scored: dict[int, NDArray] = {}
        for video in progress_bar(sorted(encoded.own_tokens), "reranking"):
            texts = np.flatnonzero(wanted[:, video])
            tokens = encoded.own_tokens[video].to(self.device)
            parts = [np.zeros(0, dtype=np.float32)]
            for first in range(0, len(texts), self.evaluation.rerank_batch_size):
                chosen = texts[first : first + self.evaluation.rerank_batch_size]
                ids, mask = self.tokenize([encoded.captions[text] for text in chosen])
                parts.append(self.model.match(tokens, ids, mask)[:, 1].float().cpu().numpy())
            scored[video] = np.concatenate(parts)
        logits = np.full(cosine.shape, np.nan)
        for part in gather_objects(scored):
            for video, column in part.items():
                logits[wanted[:, video], video] = column
        rescored = logits + cosine
        return rerank(cosine, rescored, for_text), rerank(cosine.T, rescored.T, for_video.T)


def all_captions(records: list[VideoTextRecord], clean: Callable[[str], str]) -> list[str]:
    """Every caption of the records, in their order, cleaned."""
    return [clean(caption) for record in records for caption in record.captions]
