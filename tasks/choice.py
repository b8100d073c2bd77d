"""Multiple choice: which of a video's own options describes it.

A model is trained on pairs of videos and texts, as for retrieval, and needs no head of its own: an option's score mixes
the probability that it matches the video with its share of the softmax over similarities (UMT's way).
Shapes: B videos, O options of one video, E width of the shared space.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from configs.schema import ChoiceConfig
from datasets.loaders import TrainLoader
from datasets.records import ChoiceRecord, VideoTextRecord
from datasets.remote.addresses import shown
from datasets.samples import Clip
from datasets.video_text import VideoTextDataset
from engine.checkpoint_folder import write_lines
from engine.distributed import gather_objects
from models.choosing import Chooser
from models.protocols import Matcher
from tasks.annotations import Split, setting_of
from tasks.base import PairTask
from tasks.clips import embed_clip, encode_clip
from tasks.data import clean_up, video_text, videos_alone
from tasks.metrics.answers import percent
from tasks.outcomes import clip_outcomes, with_intervals
from tasks.reranking_rules import by_share_of_options

Scores = dict[str, list[float]]
"""For each option of a video, by name: the `score`, and what it is made of."""


class ChoiceTask(PairTask):
    """Fine-tuning on pairs, and evaluation by the options of each video."""

    config: ChoiceConfig

    def __init__(self, config: ChoiceConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.best_metric: str | None = "accuracy"
        self.evaluation = config.evaluation
        self._check_model()

    def _check_model(self) -> None:
        """Refuse an evaluation that the model cannot give."""
        if isinstance(self.model, Chooser):
            if self.evaluation.matching:
                raise ValueError("evaluation.matching: this model scores options in its own way; set it to 0")
            return
        if self.evaluation.matching and not isinstance(self.model, Matcher):
            raise ValueError("evaluation.matching: this model has no head that matches; set it to 0")

    def training_texts(self) -> Iterable[str]:
        """The training captions, cleaned; of a choice the right option."""
        return video_text(self.config, pairs_of(self.split("train")), training=False).captions

    def training_samples(self) -> VideoTextDataset:
        """A sample for each training caption; of a choice for the right option."""
        return video_text(self.config, pairs_of(self.split("train")), training=True)

    def build_train_loader(self) -> TrainLoader:
        """The training pairs in batches; refuses evaluation sets without options now, not after the first epoch."""
        loader = super().build_train_loader()
        for final in (False, True):
            self._check_options(final)
        return loader

    def evaluate(self, final: bool) -> dict[str, Any]:
        """Accuracy in percent, beside that of choosing at random, and every option's scores in a file.

        Missing and unreadable videos are skipped, counted, and listed under `failed`.
        """
        self._check_options(final)
        records = self.evaluated(final).present
        failed: list[dict[str, str]] = []
        scores = self._score(records, failed)

        answered = [records[position] for position in sorted(scores)]
        description = self.described(final, len(answered), len(answered), failed)
        chosen = [best_of(scores[position]["score"]) for position in sorted(scores)]
        right = [choice == record.answer for choice, record in zip(chosen, answered, strict=True)]
        by_chance = sum(100 / len(record.options) for record in answered) / len(answered)

        rows = predictions(answered, chosen, [scores[position] for position in sorted(scores)])
        result = {
            "metrics": {"accuracy": percent(right), "chance_accuracy": by_chance},
            **description,
            "files": {"predictions.jsonl": partial(write_lines, rows)},
        }
        return with_intervals(result, {"videos": clip_outcomes(answered, {"accuracy": right}, self.config.data.root)})

    def _check_options(self, final: bool) -> None:
        annotations = self.evaluated(final).annotations
        if not all(isinstance(record, ChoiceRecord) for record in annotations.records):
            setting = setting_of(self.config, "test" if final else "eval")
            raise ValueError(f"{setting}: {annotations.source} has captions, not options to choose from; name another")

    def _score(self, records: list[ChoiceRecord], failed: list[dict[str, str]]) -> dict[int, Scores]:
        """The scores of each readable video's options, by position, from all processes."""
        data = videos_alone(self.config, records, training=False)
        clean = clean_up(self.config)
        scored: dict[int, Scores] = {}
        for positions, clips in self.each_clip(data, self.evaluation.batch_size, failed):
            # Each video's options are tokenized alone, so that their padding does not depend on the batch.
            texts = [self.tokenize([clean(text) for text in records[position].options]) for position in positions]
            scored.update(zip(positions, self._score_options(clips, texts), strict=True))
        return {position: scores for part in gather_objects(scored) for position, scores in part.items()}

    def _score_options(self, clips: Clip, texts: Sequence[tuple[Tensor, Tensor]]) -> list[Scores]:
        """The scores of the options, ids and mask (O, S), of each video of a batch."""
        if isinstance(self.model, Chooser):
            own = []
            for place, (ids, mask) in enumerate(texts):
                about = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
                video = clips.pixels[place : place + 1]
                own.append({"score": self.model.choose(video, ids, mask, about).tolist()})
            return own

        weight = self.evaluation.matching
        # Matching alone needs tokens.
        features = encode_clip(self.model, clips) if weight else None
        embeddings = embed_clip(self.model, clips) if features is None else features.embedding
        scored = []
        for place, (ids, mask) in enumerate(texts):
            # What has no share is not computed, and zeros stand for it.
            logits, similarity = torch.zeros(len(ids), 2, device=ids.device), torch.zeros(len(ids), device=ids.device)
            parts: dict[str, Tensor] = {}
            if features is not None:
                memory = self.model.project(features.tokens[place : place + 1])
                logits = self.model.match_groups([(len(ids), memory)], ids, mask)
                parts["matching"] = logits.float().softmax(dim=-1)[:, 1]
            if weight < 1:
                cosines = self.model.encode_text(ids, mask).embedding @ embeddings[place]
                similarity = cosines * self.model.similarity_scale
                parts["similarity"] = similarity.softmax(dim=0)

            parts["score"] = by_share_of_options(similarity, logits, weight)
            scored.append({name: part.tolist() for name, part in parts.items()})
        return scored


def pairs_of(split: Split) -> list[VideoTextRecord]:
    """The records that exist as pairs; a choice is a pair of the video and its right option."""
    return [
        record
        if isinstance(record, VideoTextRecord)
        else VideoTextRecord(record.video, (record.options[record.answer],), record.start, record.end)
        for record in split.present
    ]


def best_of(scores: Sequence[float]) -> int:
    """The position of the highest score; of several, the first."""
    return max(range(len(scores)), key=lambda position: (scores[position], -position))


def predictions(
    records: Sequence[ChoiceRecord], chosen: Sequence[int], scores: Sequence[Scores]
) -> list[dict[str, Any]]:
    """The rows of predictions.jsonl."""
    return [
        {
            "video": shown(record.video),
            "options": list(record.options),
            "answer": record.answer,
            "predicted": choice,
            **{name: [round(value, 6) for value in values] for name, values in of_record.items()},
        }
        for record, choice, of_record in zip(records, chosen, scores, strict=True)
    ]
