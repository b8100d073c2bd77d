"""Fit the linear probe that a configuration describes, on cached embeddings of the training set."""

import logging
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from configs.recognition import ProbeObjectiveConfig
from configs.schema import RecognitionConfig
from tasks.annotations import Split
from tasks.base import VideoTextTask
from tasks.data import videos_alone
from tasks.feature_cache import cached_embeddings
from tasks.probe import LinearProbe, fit_ridge, fit_sgd

logger = logging.getLogger(__name__)
FEATURES = "features"


def fit_probe_of(task: VideoTextTask, split: Split, folder: Path) -> LinearProbe:
    """Fit a probe on a split of labelled videos, with features below `folder`; ValueError if no video can be read."""
    config = task.config
    assert isinstance(config, RecognitionConfig) and isinstance(config.objective, ProbeObjectiveConfig)
    failed: list[dict[str, str]] = []
    samples = partial(videos_alone, config, training=False)
    positions, features = cached_embeddings(
        task, split, samples, folder / FEATURES, config.evaluation.batch_size, failed
    )
    for failure in failed:
        logger.warning("cannot read %s: %s", failure["video"], failure["reason"])
    if not positions:
        raise ValueError(f"{split.annotations.source}: none of its {split.num_annotated} videos could be read")

    records = [split.present[position] for position in positions]
    labels = torch.tensor([record.label for record in records], dtype=torch.int64)
    groups = [record.group for record in records]

    start = time.perf_counter()
    num_classes = len(split.annotations.classes)
    probe = fit(config.objective, torch.from_numpy(features), labels, num_classes, groups, config.seed)
    seconds = time.perf_counter() - start
    logger.info("probe of %d videos, %d features, penalty %.3g: %.1f s", *features.shape, probe.penalty, seconds)
    return probe


def fit(
    objective: ProbeObjectiveConfig,
    features_NE: Tensor,
    labels_N: Tensor,
    num_classes: int,
    groups: list[str | None],
    seed: int,
) -> LinearProbe:
    """The probe that the objective section describes; videos of one group are held out together."""
    if objective.solver == "ridge":
        return fit_ridge(features_NE, labels_N, num_classes, objective.penalty, groups)
    return fit_sgd(
        features_NE,
        labels_N,
        num_classes,
        seed,
        epochs=objective.epochs,
        batch_size=objective.batch_size,
        lr=objective.lr,
        weight_decay=objective.weight_decay,
        warmup_epochs=objective.warmup_epochs,
    )
