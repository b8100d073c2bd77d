"""Action recognition: zero-shot by prompts, by a linear probe on frozen embeddings, or by a fine-tuned head.

A head works on the embedding that any dual encoder makes of a video, so no tower is named here.
Shapes: V videos, C classes, E width of embeddings.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from configs.recognition import ClassObjectiveConfig
from configs.schema import RecognitionConfig
from datasets.loaders import TrainLoader
from datasets.records import ChoiceRecord, LabelRecord
from datasets.remote.addresses import shown
from datasets.video_text import VideoTextDataset
from engine.checkpoint_folder import read_json, read_weights, write_json, write_lines
from engine.hub import Checkpoint
from models.checkpoints.native import HEAD
from models.parts.class_head import ClassHead
from tasks.annotations import Part, Split, read_split
from tasks.base import VideoTextTask
from tasks.build import beside_checkpoint
from tasks.class_prompts import prompts_of, templates_of
from tasks.clips import encode_clip
from tasks.data import clean_up, videos_alone
from tasks.embeddings import embed_texts
from tasks.metrics.confusion import draw_confusion, write_confusion
from tasks.metrics.recognition import (
    class_embeddings,
    class_logits,
    confusion_matrix,
    is_among_best,
    own_option_logits,
    recognition_metrics,
    top_accuracies,
)
from tasks.outcomes import clip_outcomes, label_outcomes, with_intervals
from tasks.probing import fit_probe_of
from tasks.transfer import sent
from tasks.tubes import kept_patches
from tasks.views import embed_views, windows_of

logger = logging.getLogger(__name__)
CLASSES = "classes.json"


class RecognitionTask(VideoTextTask):
    """Recognition with any dual encoder; `head` is None for a checkpoint that has none."""

    config: RecognitionConfig
    head: ClassHead | None
    classes: tuple[str, ...] | None = None
    """The names that the head knows, by number; None without a head."""

    def __init__(self, config: RecognitionConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.best_metric: str | None = config.evaluation.best_metric
        self.evaluation = config.evaluation
        self.head, self.step = None, 0
        self.model.freeze_unused(("classes",))
        if not config.trains_in_steps:
            self.model.requires_grad_(False)
        self.start_from_checkpoint()
        self._take_head_of_checkpoint()
        if not self.by_head:
            templates_of(config)  # a wrong one is refused now, not after all videos are encoded

    @property
    def by_head(self) -> bool:
        """Whether the head classifies; otherwise prompts do."""
        return self.classes is not None and self.config.evaluation.classify != "prompts"

    def read_part(self, part: Part) -> Split:
        """Read a part of the data, with the numbers of the classes that the head knows."""
        return read_split(self.config, part, self.classes if self.by_head else None)

    def training_texts(self) -> Iterable[str]:
        """All prompts, or the options of the videos."""
        records = self.split("train").present
        if isinstance(records[0], ChoiceRecord):
            return [option for record in records for option in record.options]
        prompts = prompts_of(self.config, self.split("train").annotations.classes)
        return [clean_up(self.config)(text) for texts in prompts for text in texts]

    def training_samples(self) -> VideoTextDataset:
        """The training videos, whose classes `begin_step` adds."""
        return videos_alone(self.config, self.split("train").present, training=True)

    def build_train_loader(self) -> TrainLoader:
        """The training set in batches; makes a head for its classes."""
        self.prepare_head()
        return super().build_train_loader()

    def prepare_head(self) -> None:
        """A head for the classes of the training set: the checkpoint's own, if it knows the same ones."""
        if self.evaluation.classify == "prompts":
            raise ValueError("evaluation.classify: prompts do not look at the head that is trained; set it to auto")
        known, head = self.classes, self.head

        # The training set says what the classes are; all other parts are read by its numbers.
        self.classes = self.head = None
        annotations = self.split("train").annotations
        if not isinstance(annotations.records[0], LabelRecord):
            raise ValueError(f"data.dataset: {annotations.dataset} has options, not classes to train a head for")
        self.classes = annotations.classes
        if len(self.classes) < 2:
            raise ValueError(f"{annotations.source}: all videos are of one class, {self.classes[0]!r}")
        for part in ("eval", "test"):
            self.split(part)  # a class that training does not know surfaces before hours of it

        if head is None or known != self.classes:
            if known is not None:
                logger.info("the checkpoint's head knows %d other classes: a fresh one is trained", len(known))
            head = self._new_head(len(self.classes))
        self.head = head

    def labels(self, part: Part) -> Tensor:
        """The classes (V,) int64 of a part's videos that exist."""
        return torch.tensor([record.label for record in self.split(part).present], dtype=torch.int64)

    def begin_step(self, step: int, epoch: float, batches: Sequence[dict[str, Any]]) -> None:
        """Add the classes (B,) to the batches of an optimizer step, and number them."""
        super().begin_step(step, epoch, batches)
        labels, self.step = self.labels("train"), step
        for part, batch in enumerate(batches):
            batch["label"], batch["part"] = sent(labels[batch["row"]], self.device), part

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The cross-entropy of a micro-batch."""
        objective = self.config.objective
        assert self.head is not None and isinstance(objective, ClassObjectiveConfig)
        kept = kept_patches(self.model, batch, self.config.seed, self.step) if objective.hide_patches else None
        clip = batch["clip"]
        features = encode_clip(self.model, clip) if kept is None else self.model.encode_video(clip.pixels, kept)
        logits = self.head(features.embedding)
        return {"classes": F.cross_entropy(logits, batch["label"], label_smoothing=objective.label_smoothing)}

    def fit(self) -> None:
        """Fit a linear probe on the embeddings of the training set, which are computed once and kept on disk."""
        self.prepare_head()
        assert self.head is not None and self.config.output_dir is not None
        probe = fit_probe_of(self, self.split("train"), Path(self.config.output_dir))
        self.head.set_to(probe.mean, probe.std, probe.weight, probe.bias)

    def evaluate(self, final: bool) -> dict[str, Any]:
        """`top1`, `top5` and `mean_per_class`, with the number of videos, the split, and what classified them.

        Videos with options of their own have no `mean_per_class`. Missing and unreadable videos are counted and listed
        under `failed`, and left out of the metrics.
        """
        if self.evaluation.classify == "head" and self.head is None:
            raise ValueError("evaluation.classify: this checkpoint has no head; leave it at auto, or use prompts")
        split = self.evaluated(final)
        windows = windows_of(self.evaluation)
        data = videos_alone(self.config, split.present, training=False, windows=windows)
        failed: list[dict[str, str]] = []
        views = embed_views(self, data, self.evaluation, failed)
        positions = views.positions
        records = [split.present[position] for position in positions]

        if isinstance(split.annotations.records[0], ChoiceRecord):
            return self._of_options(final, records, views.mean_embeddings(), failed)

        by_head, classes = self.by_head, split.annotations.classes
        prompts = [] if by_head else prompts_of(self.config, classes)
        description = self.described(final, len(positions), sum(map(len, prompts)), failed)
        if by_head:
            logits = views.mean_logits(self.head_logits(views.embeddings))
        else:
            logits = class_logits(views.mean_embeddings(), self._embed_classes(prompts))

        labels = np.array([record.label for record in records])
        counts = confusion_matrix(logits, labels)
        title = f"{description['dataset']} {description['split']}"
        result = {
            "metrics": recognition_metrics(logits, labels),
            **description,
            "classified_by": "head" if by_head else "prompts",
            "prompts": None if by_head else list(templates_of(self.config)),
            "class_words": None if by_head else self.evaluation.class_words,
            "num_classes": len(classes),
            "windows": self.evaluation.windows,
            "mirror": self.evaluation.mirror,
            "files": {
                "confusion.png": partial(draw_confusion, counts, classes, title),
                "confusion.csv": partial(write_confusion, counts, classes),
                "predictions.jsonl": partial(write_lines, predictions(records, logits, classes)),
            },
        }
        return with_intervals(result, label_outcomes(records, classes, logits, self.config.data.root))

    def head_logits(self, videos_VE: NDArray) -> NDArray:
        """The head's logits (V, C), float32, of embeddings."""
        assert self.head is not None
        # The head computes in float32 on all rows at once, so batches and processes make no difference.
        return self.head(torch.from_numpy(videos_VE).float().to(self.device)).cpu().numpy()

    def save_extras(self, folder: Path) -> None:
        """Put the tokenizer, and the names of the head's classes, beside the weights."""
        super().save_extras(folder)
        if self.head is not None:
            write_json(folder / CLASSES, list(self.classes or ()))

    def _of_options(
        self, final: bool, records: list[ChoiceRecord], videos: NDArray, failed: list[dict[str, str]]
    ) -> dict[str, Any]:
        """The result where each video has options of its own; equal texts are embedded once."""
        texts = list(dict.fromkeys(option for record in records for option in record.options))
        description = self.described(final, len(records), len(texts), failed)

        clean, row_of = clean_up(self.config), {text: row for row, text in enumerate(texts)}
        embeddings = embed_texts(self, [clean(text) for text in texts])
        rows = [[row_of[option] for option in record.options] for record in records]
        logits = own_option_logits(videos, embeddings, rows)

        answers = np.array([record.answer for record in records])
        most = max(len(record.options) for record in records)
        right = {name: is_among_best(logits, answers, most) for name, most in (("top1", 1), ("top5", 5))}
        result = {
            "metrics": top_accuracies(logits, answers),
            **description,
            "classified_by": "options",
            "num_classes": most,
            "files": {"predictions.jsonl": partial(write_lines, option_predictions(records, logits))},
        }
        return with_intervals(result, {"videos": clip_outcomes(records, right, self.config.data.root)})

    def _embed_classes(self, prompts: list[list[str]]) -> NDArray:
        """One embedding a class (C, E), of all its prompts."""
        clean, per_class = clean_up(self.config), len(prompts[0])
        texts = [clean(text) for of_class in prompts for text in of_class]
        embeddings = embed_texts(self, texts)
        return class_embeddings(embeddings.reshape(len(prompts), per_class, -1))

    def _new_head(self, num_classes: int) -> ClassHead:
        dropout = getattr(self.config.objective, "dropout", 0.0)
        return ClassHead(self.model.embed_dim, num_classes, dropout, self.config.seed).to(self.device)

    def _take_head_of_checkpoint(self) -> None:
        """The head of the checkpoint, and the names of its classes, if a run of ours wrote one."""
        known = beside_checkpoint(self.config, CLASSES)
        if known is None:
            return
        assert self.config.checkpoint is not None
        classes = tuple(read_json(known))
        tensors = read_weights(Checkpoint.find(self.config.checkpoint).path)
        weights = {name.removeprefix(HEAD): tensor for name, tensor in tensors.items() if name.startswith(HEAD)}
        if len(weights["linear.bias"]) != len(classes):
            raise ValueError(f"{known}: names {len(classes)} classes, the head has {len(weights['linear.bias'])}")
        head = self._new_head(len(classes))
        head.load_state_dict(weights)
        self.classes, self.head = classes, head


def predictions(records: list[LabelRecord], logits_VC: NDArray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of predictions.jsonl: each video's class, and its best five."""
    best = np.argsort(-logits_VC, axis=1, kind="stable")[:, :5]
    return [
        {"video": shown(record.video), "class": classes[record.label], "predicted": [classes[place] for place in row]}
        for record, row in zip(records, best.tolist(), strict=True)
    ]


def option_predictions(records: list[ChoiceRecord], logits_VO: NDArray) -> list[dict[str, Any]]:
    """The same for videos with options of their own."""
    best = logits_VO.argmax(axis=1).tolist()
    return [
        {"video": shown(record.video), "answer": record.options[record.answer], "predicted": record.options[place]}
        for record, place in zip(records, best, strict=True)
    ]
