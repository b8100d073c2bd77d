"""Paragraph-to-video retrieval: fine-tuning, and evaluation by cosine with the best rescored by matching."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from configs.schema import RetrievalConfig
from datasets.loaders import evaluation_loader
from engine.distributed import gather_objects, is_main, rank, world_size
from tasks.base import PairTask, read_records, video_text
from tasks.metrics.retrieval import both_directions, rerank, shortlist

logger = logging.getLogger(__name__)
TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class EncodedSet:
    """A test set's embeddings, and the video tokens of this process.

    Attributes:
        videos: (V, E) of all videos that could be read, in order; texts: (N, E) of all their captions.
        text_video: (N,) the row in `videos` of each text; captions: the N texts.
        own_tokens: video tokens (1, M, D) by row in `videos`, of those that this process encoded.
        failed: unreadable files with their reasons.
    """

    videos: NDArray
    texts: NDArray
    text_video: NDArray
    captions: list[str]
    own_tokens: dict[int, Tensor]
    failed: list[dict[str, str]]


class RetrievalTask(PairTask):
    """TESTA's fine-tuning for retrieval: positives are all pairs of one video, no decoder."""

    def __init__(self, config: RetrievalConfig, device: torch.device) -> None:
        super().__init__(config, device, decoder="none", positives="index")
        self.best_metric = config.evaluation.best_metric
        self.evaluation = config.evaluation
        self._eval_manifest = config.data.eval_manifest or config.data.manifest
        if config.data.eval_manifest is None:
            logger.info("no data.eval_manifest: evaluation is on %s, which training sees", self._eval_manifest)
        present, missing = read_records(config, self._eval_manifest)
        self._missing = [{"video": record.video, "reason": "no such file"} for record in missing]
        self._eval_data = video_text(config, present, training=False)

    def evaluate(self) -> dict[str, Any]:
        """Metrics of both directions, `_cosine` before reranking, with how many videos and texts they are of.

        Videos that are not there or cannot be read are left out with their texts, counted, and named under `failed`.
        """
        encoded = self._encode_set()
        cosine = encoded.texts @ encoded.videos.T  # (texts, videos)
        t2v, v2t = self._rescore(encoded, cosine) if self.evaluation.rerank > 0 else (cosine, cosine.T)
        failed = self._missing + encoded.failed
        return {
            "metrics": both_directions(t2v, v2t, encoded.text_video)
            | both_directions(cosine, cosine.T, encoded.text_video, "_cosine"),
            "dataset": Path(self.config.data.root).name,
            "split": Path(self._eval_manifest).stem,
            "num_videos": len(encoded.videos),
            "num_texts": len(encoded.captions),
            "num_missing": len(failed),
            "failed": failed,
        }

    def _encode_set(self) -> EncodedSet:
        """Each video and each text once, shared out over the processes."""
        loader = evaluation_loader(
            self._eval_data,
            batch_size=self.evaluation.batch_size,
            rank=rank(),
            world_size=world_size(),
            workers=self.config.train.workers,
        )
        embeddings: dict[int, NDArray] = {}
        tokens: dict[int, Tensor] = {}
        failed: list[dict[str, str]] = []
        for batch in _bar(loader, "videos"):
            failed += batch["failed"]
            if batch["video"] is None:
                continue
            encoded = self.model.encode_video(batch["video"].to(self.device, non_blocking=True))
            for row, index in enumerate(batch["index"].tolist()):
                embeddings[index] = encoded.embedding[row].cpu().numpy()
                if self.evaluation.rerank > 0:
                    tokens[index] = encoded.tokens[row : row + 1].cpu()
        embeddings = {index: row for part in gather_objects(embeddings) for index, row in part.items()}
        failed = [failure for part in gather_objects(failed) for failure in part]
        if not embeddings:
            raise ValueError(f"{self._eval_manifest}: none of its {len(self._eval_data)} videos could be read")
        readable = sorted(embeddings)
        place = {index: row for row, index in enumerate(readable)}
        kept = [
            (caption, place[video])
            for caption, video in zip(self._eval_data.captions, self._eval_data.caption_video, strict=True)
            if video in place
        ]
        captions = [caption for caption, _ in kept]
        return EncodedSet(
            videos=np.stack([embeddings[index] for index in readable]),
            texts=self._embed_texts(captions),
            text_video=np.array([video for _, video in kept]),
            captions=captions,
            own_tokens={place[index]: kept_tokens for index, kept_tokens in tokens.items()},
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
        for video in _bar(sorted(encoded.own_tokens), "reranking"):
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


def _bar(items: Any, description: str) -> tqdm:
    # disable=None: no bar where the output is no terminal
    return tqdm(items, desc=description, disable=None if is_main() else True, leave=False)
