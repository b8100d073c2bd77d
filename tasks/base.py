"""What the tasks over pairs of videos and texts share: how they are built, and one training forward.

A task is an nn.Module that turns batches into losses; `engine/task.py` says what the engine asks of it.
"""

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from configs.schema import PretrainConfig, RetrievalConfig, RunConfig
from datasets.annotations import manifest
from datasets.loaders import TrainLoader
from datasets.records import VideoTextRecord, split_missing
from datasets.video_text import VideoTextDataset
from engine.checkpoint import read_weights
from engine.distributed import rank, world_size
from models.checkpoints.native import load_model
from models.tokenizer import FROM_DATA, TextTokenizer, load_tokenizer, make_tokenizer
from models.vision_language import VisionLanguageModel
from tasks.objectives import Objectives

logger = logging.getLogger(__name__)
TOKENIZER = "tokenizer"


class PairTask(nn.Module):
    """Train a model on pairs of videos and texts with the configured objectives.

    Args:
        config: of pre-training or retrieval.
        device: where the batches will be; the module itself is moved by the engine.
        decoder, positives: see `VisionLanguageModel` and `Objectives`.
    """

    def __init__(
        self,
        config: PretrainConfig | RetrievalConfig,
        device: torch.device,
        decoder: Literal["none", "tied"],
        positives: Literal["row", "index"],
    ) -> None:
        super().__init__()
        self.config, self.device = config, device
        self.tokenizer = build_tokenizer(config)
        self.model = build_model(config, self.tokenizer, decoder)
        if config.checkpoint is not None:
            left = load_model(self.model, read_weights(Path(config.checkpoint)), config.checkpoint)
            logger.info("weights from %s%s", config.checkpoint, f"; not taken: {', '.join(left)}" if left else "")
        self.objectives = Objectives(self.model, config.objective, positives, config.seed)
        if config.train.compile:
            self.model.visual_encoder.compile(fullgraph=True)

    @cached_property
    def _train_loader(self) -> TrainLoader:
        present, missing = read_records(self.config, self.config.data.manifest)
        if missing:
            logger.warning("%d of %d videos are missing and left out", len(missing), len(missing) + len(present))
        return TrainLoader(
            video_text(self.config, present, training=True),
            batch_size=self.config.train.batch_size,
            accumulate=self.config.train.accumulate,
            seed=self.config.seed,
            rank=rank(),
            world_size=world_size(),
            workers=self.config.train.workers,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch; what does not fill a batch is left for another epoch."""
        return self._train_loader.steps_per_epoch

    def train_epoch(self, epoch: int, first_step: int) -> Iterator[dict[str, Any]]:
        """The micro-batches of an epoch from optimizer step `first_step` on."""
        return self._train_loader.epoch(epoch, first_step)

    def begin_step(self, step: int, epoch: float) -> None:
        """Before the first forward of an optimizer step."""
        self.objectives.begin_step(self.model, step, epoch)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of a batch, by name."""
        ids, mask = self.tokenize(batch["text"])
        return self.objectives(self.model, batch["video"], ids, mask, batch["index"])

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask on the task's device; texts are cut to as many tokens as the model has positions for."""
        ids, mask = self.tokenizer(texts, self.config.model.text.max_positions)
        return ids.to(self.device), mask.to(self.device)

    def save_extras(self, folder: Path) -> None:
        """Put the tokenizer beside the weights."""
        self.tokenizer.save(folder / TOKENIZER)


def read_records(config: RunConfig, name: str) -> tuple[list[VideoTextRecord], list[VideoTextRecord]]:
    """The records of a manifest of the configuration: those whose video is there, and the missing."""
    root = Path(config.data.root)
    videos = Path(config.data.videos) if config.data.videos else root / "videos"
    return split_missing(manifest.read(root / name, videos), videos)


def video_text(config: RunConfig, records: list[VideoTextRecord], training: bool) -> VideoTextDataset:
    """Records as samples of the configured frames and pixels."""
    video, data = config.video, config.data
    return VideoTextDataset(
        records,
        num_frames=video.num_frames,
        image_size=video.image_size,
        sampling=video.train_sampling if training else video.eval_sampling,
        seed=config.seed,
        max_words=data.max_words,
        training=training,
        augment=training and video.augment,
        resize=video.resize,
        cache_bytes=int(data.cache_gb * 2**30) if data.cache == "memory" and training else None,
    )


def build_tokenizer(config: RunConfig) -> TextTokenizer:
    """The checkpoint's own tokenizer where it has one, else the configured one."""
    text = config.model.text
    own = None if config.checkpoint is None else _folder_of(Path(config.checkpoint)) / TOKENIZER
    if own is not None and own.is_dir():
        tokenizer = load_tokenizer(str(own))
    elif text.tokenizer == FROM_DATA:
        present, _ = read_records(config, config.data.manifest)
        tokenizer = make_tokenizer(video_text(config, present, training=False).captions, text.vocab_size)
    else:
        tokenizer = load_tokenizer(text.tokenizer)
    if len(tokenizer) > text.vocab_size:
        raise ValueError(
            f"model.text.vocab_size: {text.vocab_size} rows for a vocabulary of {len(tokenizer)}; raise it to that"
        )
    return tokenizer


def build_model(
    config: PretrainConfig | RetrievalConfig, tokenizer: TextTokenizer, decoder: Literal["none", "tied"]
) -> VisionLanguageModel:
    """The configured model with fresh weights."""
    return VisionLanguageModel(
        config.model,
        config.video,
        config.aggregation,
        enc_token_id=tokenizer.enc_id,
        dec_token_id=tokenizer.dec_id,
        sep_token_id=tokenizer.sep_id,
        decoder=decoder,
        label_smoothing=config.objective.label_smoothing,
        temperature=config.objective.temperature,
        activation_checkpointing=config.train.activation_checkpointing,
    )


def _folder_of(checkpoint: Path) -> Path:
    return checkpoint if checkpoint.is_dir() else checkpoint.parent
