"""Pre-training on pairs of short videos, or images, and captions, and on videos with timed words."""

import logging
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import torch

from configs.schema import PretrainConfig, SourceConfig
from datasets.digest import join_digests
from datasets.loaders import TrainLoader
from datasets.mixing import Mixture, Source
from datasets.sources import missing_of_some
from datasets.speech import SpeechDataset
from datasets.video_text import VideoTextDataset
from engine.distributed import rank, world_size
from tasks.annotations import digest_of, open_table, sources_of, speech_of
from tasks.base import PairTask
from tasks.data import clean_up, extras_of, framing_of
from tasks.folders import media_folder
from tasks.sorting import evaluate_sorting

logger = logging.getLogger(__name__)
UNITS = {"pairs": "pairs", "speech": "videos with speech"}
"""What the rows of a source are, by its kind."""


class PretrainTask(PairTask):
    """Pre-training with the configured objective, in which each pair stands alone, or each video with its transcripts.

    `data.sources`, or `data.manifest` alone, are read through indices on disk. Their files are not checked one by one:
    a missing or broken file is replaced when it is read. A public dataset is read as in the other tasks.

    Only where transcripts are sorted is there an evaluation: of the sorting of held-out speech.
    """

    config: PretrainConfig

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        check_sources(config)
        super().__init__(config, device)
        self.best_metric = config.evaluation.best_metric if config.is_evaluated else None

    @cached_property
    def _mixture(self) -> Mixture | None:
        """All sources as one training set; None for a public dataset."""
        config = self.config
        sources = sources_of(config)
        if not sources:
            return None
        read = [read_source(config, source) for source in sources]
        return Mixture(read, config.data.mixing, config.data.order, config.data.epoch_source_position)

    @property
    def losses_differ(self) -> bool:
        """Whether some sources, or epochs, train on fewer losses than others, so that some steps lack gradients."""
        chosen = {source.losses and tuple(sorted(source.losses)) for source in self.config.data.sources}
        return len(chosen) > 1 or self.config.objective.lasting_losses != self.config.objective.losses

    def train_epoch(self, epoch: int, first_step: int) -> Iterator[dict[str, Any]]:
        """The micro-batches; a source with its own `losses` adds them to its batches."""
        sources = self.config.data.sources
        for batch in super().train_epoch(epoch, first_step):
            source = batch["source"]
            own = None if source is None else sources[source].losses
            yield batch if own is None else {**batch, "losses": own}

    def training_texts(self) -> Iterable[str]:
        """The texts that a vocabulary is learned from, if none is given."""
        if self._mixture is None:
            return super().training_texts()
        return (text for source in self._mixture.sources for text in source.data.training_texts)

    @cached_property
    def data_digest(self) -> str:
        """The digest of the training rows; for sources it joins the digests of their indices, so no row is read."""
        if self._mixture is None:
            return digest_of(self.config, self.split("train"))
        return join_digests(source.data.table.digest for source in self._mixture.sources)

    def build_train_loader(self) -> TrainLoader:
        """The sources in batches, mixed as `data.mixing` says."""
        if self._mixture is None:
            return super().build_train_loader()

        for source in self._mixture.sources:
            if self.tags is not None:
                self.tags.check(source.data.table.texts)

        return TrainLoader(
            self._mixture,
            batch_size=self.config.train.batch_size,
            accumulate=self.config.train.accumulate,
            seed=self.config.seed,
            rank=rank(),
            world_size=world_size(),
            workers=self.config.train.workers,
            sample_timeout=self.config.train.sample_timeout,
        )

    def evaluate(self, final: bool) -> dict[str, Any]:
        """How well held-out transcripts are sorted; else the tasks that start from a checkpoint judge it."""
        if not self.config.is_evaluated:
            raise ValueError("pre-training has no evaluation; evaluate a checkpoint with train_retrieval.py --evaluate")
        (source,) = speech_of(self.config, test_only=True) if final else speech_of(self.config)[:1]
        return evaluate_sorting(self, source)


def read_source(config: PretrainConfig, source: SourceConfig) -> Source:
    """Open one source and log what it holds; ValueError if none of its files exists.

    A relative file or media folder is in `data.root`. Augmentation reads frames larger than the source's own
    `image_size`, by the ratio of `video.resize` to `video.image_size`.
    """
    video, data = config.video, config.data
    path, table = open_table(config, source)
    missing, looked_for = missing_of_some(path, table)

    image_size = source.image_size or video.image_size
    num_frames = source.num_frames or video.num_frames
    logger.info(
        "%s: %d %s, each %g times an epoch as %d frames of %d pixels; %d rows without words left out",
        *(path, len(table), UNITS[source.kind], source.weight, num_frames, image_size, table.left_out),
    )
    if missing:
        logger.warning("%s: %d of %d files looked for are missing; such are replaced", path, missing, looked_for)

    settings: dict[str, Any] = {
        "num_frames": num_frames,
        "framing": framing_of(video, training=True, image_size=source.image_size),
        "sampling": video.train_sampling,
        "seed": config.seed,
        "clean": clean_up(config),
        "training": True,
        "cache_bytes": int(data.cache_gb * 2**30) if data.cache == "memory" else None,
    }
    if source.kind == "speech":
        samples: VideoTextDataset = SpeechDataset(table, speech=data.speech, **settings)
    else:
        extras = extras_of(config, table, str(media_folder(config, source)))
        samples = VideoTextDataset(table, extras=extras, **settings)
    return Source(str(path), samples, source.weight, source.batch_size)


def check_sources(config: PretrainConfig) -> None:
    """Refuse sources whose sizes the model or its losses cannot take."""
    for source in config.data.sources:
        try:
            config.model.check_clip(
                source.num_frames or config.video.num_frames, source.image_size or config.video.image_size, config.video
            )
        except ValueError as error:
            raise ValueError(f"data.sources: {source.file}: {error}; leave one of them out or change it") from None

        losses = config.objective.losses if source.losses is None else source.losses
        if "sorting" in losses and source.kind == "pairs":
            raise ValueError(
                f"data.sources: losses of {source.file}: 'sorting' takes transcripts, and it holds pairs; give it "
                "losses without it, or set its kind to speech"
            )
        unknown = set(losses) - set(config.objective.losses)
        if unknown:
            raise ValueError(
                f"data.sources: losses of {source.file}: {min(unknown)!r} is none of objective.losses "
                f"({', '.join(config.objective.losses)}); add it there or leave it out"
            )

        if not set(losses) & set(config.objective.lasting_losses):
            raise ValueError(
                f"data.sources: losses of {source.file}: 'vtc' alone trains on nothing after objective.vtc_epochs"
            )
        if "vtm" in losses and "vtc" not in losses and config.objective.matches_by_contrast:
            raise ValueError(f"data.sources: losses of {source.file}: 'vtm' draws its negatives by 'vtc'; add that")
        # The objective section already checked train.batch_size; this checks the source's own.
        batch_size = source.batch_size or config.train.batch_size
        if "vtm" in losses and batch_size // config.train.accumulate < 2:
            raise ValueError(
                f"data.sources: batch_size {batch_size} of {source.file} leaves matching no second sample as negative; "
                "make it larger, or leave 'vtm' out of objective.losses"
            )

    # Every loss of the objective must belong to some source.
    idle = set(config.objective.losses)
    for source in config.data.sources or ():
        idle -= set(config.objective.losses if source.losses is None else source.losses)
    if config.data.sources and idle:
        raise ValueError(f"objective.losses: no source of data.sources trains on {min(idle)!r}; leave it out")
