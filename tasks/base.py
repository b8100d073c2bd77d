"""What all video-text tasks share: building the model, reading the training data, and iterating over evaluation videos.

A task is an nn.Module that turns batches into losses; `engine/task.py` says what the engine asks of it.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from tqdm import tqdm

from configs.schema import ChoiceConfig, PretrainConfig, RetrievalConfig, TaskConfig
from datasets.loaders import TrainLoader, evaluation_loader
from datasets.samples import Clip
from datasets.tags import TagStore
from datasets.video_text import VideoTextDataset
from engine.distributed import gather_objects, is_main, rank, world_size
from models.parts.momentum import MomentumTwin
from tasks.annotations import Part, Split, digest_of, named_files, read_split, setting_of
from tasks.budgets import draw_keep, restore_keep
from tasks.build import TOKENIZER, build_model, build_tokenizer, load_checkpoint
from tasks.data import video_text
from tasks.folders import root_folder
from tasks.objectives.table import objective_class
from tasks.transfer import sent

logger = logging.getLogger(__name__)


class VideoTextTask(nn.Module):
    """A model with its tokenizer, its training data and its evaluation data.

    Each part of the data is read on first use, so evaluating a checkpoint needs no training data.

    Args:
        config: the configuration of any task.
        device: where the batches go; the engine moves the module itself.
    """

    def __init__(self, config: TaskConfig, device: torch.device) -> None:
        super().__init__()
        self.config, self.device = config, device
        self._splits: dict[Part, Split] = {}
        self._hung: dict[str, str] = {}
        self.tokenizer = build_tokenizer(config, self.training_texts)
        self.model = build_model(config, self.tokenizer)

    def start_from_checkpoint(self, twin: MomentumTwin | None = None) -> None:
        """Load the initial weights, if the run has any, and compile the towers if the configuration asks for it."""
        load_checkpoint(self.config, self.model, twin)
        if self.config.train.compile:
            self.model.compile_towers()

    def begin_step(self, step: int, epoch: float, batches: Sequence[dict[str, Any]]) -> None:
        """Prepare an optimizer step before its first forward pass: draw the share of tokens that it keeps."""
        draw_keep(self, self.config.aggregation, self.config.seed, step)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation, which keeps the configured share of tokens."""
        if not mode:
            restore_keep(self, self.config.aggregation)
        return super().train(mode)

    def split(self, part: Part) -> Split:
        """The records of one part of the data; each file is read once, even if it serves as several parts."""
        if part not in self._splits:
            named = named_files(self.config, part)
            first = part != "train" and not self._splits.keys() - {"train"}
            if first and named == named_files(self.config, "train"):
                logger.info("no %s: evaluation is on %s, which training sees", setting_of(self.config, "eval"), named)

            # Parts that name the same files share one set of records.
            same = [read for other, read in self._splits.items() if named_files(self.config, other) == named]
            self._splits[part] = same[0] if same else self.read_part(part)
        return self._splits[part]

    @cached_property
    def tags(self) -> TagStore | None:
        """The nouns and verbs of training texts, if `data.tags` names a file; using a checkpoint needs none."""
        return None if self.config.data.tags is None else TagStore(root_folder(self.config) / self.config.data.tags)

    def read_part(self, part: Part) -> Split:
        """Read a part of the data from its files."""
        return read_split(self.config, part)

    def training_texts(self) -> Iterable[str]:
        """The texts that a vocabulary is learned from, if none is given."""
        return video_text(self.config, self.split("train").present, training=False).captions

    def training_samples(self) -> VideoTextDataset:
        """The training samples, one for each text."""
        return video_text(self.config, self.split("train").present, training=True)

    def build_train_loader(self) -> TrainLoader:
        """The training set in batches. Also reads the evaluation sets, so their faults surface before training."""
        if not self.split("train").annotations.labelled:
            raise ValueError(
                f"{self.split('train').annotations.source}: which text is of which video is not public, so there is "
                "nothing to train on; name another data.train_split"
            )

        missing = self.split("train").missing_videos
        if missing:
            logger.warning("%d of %d videos are missing and left out", len(missing), self.split("train").num_annotated)

        if self.best_metric is not None:
            for part in ("eval", "test"):
                self.split(part)

        samples = self.training_samples()
        if self.tags is not None:
            self.tags.check(samples.table.texts)
        return TrainLoader(
            samples,
            batch_size=self.config.train.batch_size,
            accumulate=self.config.train.accumulate,
            seed=self.config.seed,
            rank=rank(),
            world_size=world_size(),
            workers=self.config.train.workers,
            sample_timeout=self.config.train.sample_timeout,
        )

    @cached_property
    def _train_loader(self) -> TrainLoader:
        return self.build_train_loader()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch; samples that do not fill a batch wait for another epoch."""
        return self._train_loader.steps_per_epoch

    @cached_property
    def data_digest(self) -> str:
        """A digest of the training rows: other rows, or the same rows in another order, give another digest."""
        return digest_of(self.config, self.split("train"))

    def train_epoch(self, epoch: int, first_step: int) -> Iterator[dict[str, Any]]:
        """The micro-batches of an epoch, starting at optimizer step `first_step`."""
        return self._train_loader.epoch(epoch, first_step)

    def exclude(self, videos: Iterable[str]) -> None:
        """Stop training on these files when the next epoch begins."""
        self._train_loader.exclude(videos)

    def tokenize(self, texts: list[str], max_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """Ids and mask on the task's device, cut to `max_tokens`, by default `data.max_tokens`.

        Texts never exceed the number of positions that the text tower has.
        """
        ids, mask = self._tokens(texts, max_tokens)
        return sent(ids, self.device), sent(mask, self.device)

    def tokenize_step(self, batches: Sequence[dict[str, Any]]) -> list[Tensor]:
        """Add `ids` and `mask`, on the task's device, to each micro-batch; returns the masks (B, S) on the CPU.

        With `data.tags` also `tags`, which of them are nouns and which verbs, bool (B, S) both.
        """
        masks = []
        for batch in batches:
            ids, mask = self._tokens(batch["text"])
            batch["ids"], batch["mask"] = sent(ids, self.device), sent(mask, self.device)
            if self.tags is not None:
                found = self.tags.masks(batch["text"], mask.sum(dim=1).tolist(), self._most_tokens())
                batch["tags"] = tuple(sent(torch.from_numpy(part), self.device) for part in found)
            masks.append(mask)
        return masks

    def _tokens(self, texts: list[str], max_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        return self.tokenizer(texts, self._most_tokens(max_tokens))

    def _most_tokens(self, max_tokens: int | None = None) -> int:
        limits = (max_tokens or self.config.data.max_tokens, self.config.model.most_tokens)
        return min(limit for limit in limits if limit is not None)

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Fold the weights to evaluate in `dtype`; outputs stay equal to 1e-5. A compiled encoder is left unchanged."""
        if not self.config.train.compile:
            self.model.fold_for_inference(dtype)

    def save_extras(self, folder: Path) -> None:
        """Put the tokenizer beside the weights."""
        self.tokenizer.save(folder / TOKENIZER)

    def each_video(
        self, data: VideoTextDataset, batch_size: int, failed: list[dict[str, Any]]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield this process's share of the videos: positions and pixels (B, T, 3, H, W); see `each_clip`."""
        for positions, clip in self.each_clip(data, batch_size, failed):
            yield positions, clip.pixels

    def each_clip(
        self, data: VideoTextDataset, batch_size: int, failed: list[dict[str, Any]]
    ) -> Iterator[tuple[list[int], Clip]]:
        """Yield this process's share of the videos: positions, and clips with what goes along with them.

        Videos that cannot be read are added to `failed`. A video that hung in an earlier evaluation is not retried.
        """
        data.exclude(self._hung)
        loader = evaluation_loader(
            data,
            batch_size=batch_size,
            rank=rank(),
            world_size=world_size(),
            workers=self.config.train.workers,
            sample_timeout=self.config.train.sample_timeout,
        )

        for batch in progress_bar(loader, "videos"):
            failed += batch["failed"]
            self._hung |= {entry["video"]: entry["reason"] for entry in batch["failed"] if entry["excluded"]}
            if batch["clip"] is not None:
                yield batch["index"].tolist(), batch["clip"].to(self.device, non_blocking=True)

    def evaluated(self, final: bool) -> Split:
        """The part of the data to evaluate: the test set for the final evaluation, else the evaluation set."""
        return self.split("test" if final else "eval")

    def described(self, final: bool, num_videos: int, num_texts: int, failed: list[dict[str, str]]) -> dict[str, Any]:
        """Describe what an evaluation covered: names, counts, and every video that was left out.

        `failed` lists the videos that this process could not read; `num_videos` counts those that some process read.
        `ValueError` if `num_videos` is 0.
        """
        split = self.evaluated(final)
        left_out = split.missing_videos + [failure for part in gather_objects(failed) for failure in part]

        if not num_videos:
            named = named_files(self.config, "test" if final else "eval")
            raise ValueError(f"{named}: none of its {split.num_annotated} videos could be read")

        return {
            "dataset": split.annotations.dataset,
            "split": split.annotations.split,
            "source": split.annotations.source,
            "video_list": split.annotations.video_list,
            "labelled": split.annotations.labelled,
            "num_annotated": split.num_annotated,
            "num_videos": num_videos,
            "num_texts": num_texts,
            "num_missing": len(left_out),
            "failed": left_out,
        }


class PairTask(VideoTextTask):
    """Train a model on pairs of videos and texts with the configured objectives.

    Args:
        config: the configuration of pre-training, retrieval or multiple choice.
    """

    best_metric: str | None = None

    def __init__(self, config: PretrainConfig | RetrievalConfig | ChoiceConfig, device: torch.device) -> None:
        super().__init__(config, device)
        objective = objective_class(config.objective.name)
        self.objectives = objective(self.model, config.objective, config.positives, config.seed)
        self.start_from_checkpoint(self.objectives.twin)

    def begin_step(self, step: int, epoch: float, batches: Sequence[dict[str, Any]]) -> None:
        """Prepare an optimizer step before its first forward pass: tokenize texts and update the momentum twin."""
        super().begin_step(step, epoch, batches)
        masks = self.tokenize_step(batches)
        self.objectives.begin_step(self.model, step, epoch, batches, masks)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of a micro-batch, by name."""
        return self.objectives(self.model, batch)


def progress_bar(items: Iterable[Any], description: str) -> tqdm:
    """A progress bar on the main process; hidden if the output is not a terminal."""
    return tqdm(items, desc=description, disable=None if is_main() else True, leave=False)
