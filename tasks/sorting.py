"""Evaluation of pre-training: how well the transcripts of held-out videos are sorted.

Shapes: B clips, T frames, K transcripts.
"""

import logging
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.schema import PretrainConfig, SourceConfig
from datasets import sampling
from datasets.annotations.timed_words import NUM_CLIPS
from datasets.loaders import evaluation_loader
from datasets.speech import SpeechDataset
from engine.distributed import gather_objects, rank, world_size
from models.parts.losses_sorting import sorted_right
from models.trained_protocols import Sorter
from tasks.annotations import open_table
from tasks.data import clean_up, framing_of
from tasks.folders import root_folder
from tasks.transfer import sent

logger = logging.getLogger(__name__)


class SortingTask(Protocol):
    """What is evaluated: a model that sorts, and how texts become ids."""

    config: PretrainConfig
    device: torch.device
    model: Sorter

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (P, S)."""
        ...


def evaluate_sorting(task: SortingTask, source: SourceConfig) -> dict[str, Any]:
    """The metrics of `sorting_metrics` on the speech of a source, and what they cover, as `Task.evaluate` returns it.

    Clips are cut as in training, once for all epochs. All patches are seen. Videos that cannot be read are left out and
    listed.
    """
    config = task.config
    path, table = open_table(config, source)
    data = SpeechDataset(
        table,
        speech=config.data.speech,
        num_frames=config.video.num_frames,
        framing=framing_of(config.video, training=False),
        sampling=config.video.eval_sampling,
        seed=config.seed,
        clean=clean_up(config),
        training=False,
    )
    loader = evaluation_loader(
        data,
        batch_size=config.evaluation.batch_size,
        rank=rank(),
        world_size=world_size(),
        workers=config.train.workers,
        sample_timeout=config.train.sample_timeout,
    )

    own: dict[int, list[bool]] = {}
    failed: list[dict[str, Any]] = []
    for batch in loader:
        failed += batch["failed"]
        if batch["clip"] is None:
            continue
        positions = batch["index"].tolist()
        pixels = sent(batch["clip"].pixels, task.device)
        if config.evaluation.segments == "permuted":
            pixels = permute_segments(pixels, [segment_order(config.seed, position) for position in positions])
        ids_BKS = task.tokenize(batch["text"])[0].unflatten(0, (len(positions), -1))
        logits = task.model.sort(pixels, ids_BKS).order_logits
        assert logits is not None, "the model sorts, and a video has several transcripts"
        own |= dict(zip(positions, sorted_right(logits).tolist(), strict=True))

    # In the order of the videos, so that nothing depends on how they were shared out.
    gathered = {position: row for part in gather_objects(own) for position, row in part.items()}
    left_out = [failure for part in gather_objects(failed) for failure in part]
    if not gathered:
        raise ValueError(f"{path}: none of its {table.num_videos} videos could be read and cut")
    right = np.array([gathered[position] for position in sorted(gathered)])

    return {
        "metrics": sorting_metrics(right),
        "dataset": root_folder(config).resolve().name,
        "split": Path(source.file).stem,
        "source": f"speech of {path}, segments {config.evaluation.segments.replace('_', ' ')}",
        "num_annotated": table.num_videos,
        "num_videos": len(right),
        "num_texts": right.size,
        "num_missing": len(left_out),
        "failed": left_out,
    }


def sorting_metrics(right_VK: NDArray[np.bool_]) -> dict[str, float]:
    """Percentages: of videos with all transcripts right, of right transcripts, of those at each place; beside, chance.

    `sort_all_chance` is of a random order, `sort_accuracy_chance` of any transcript.
    """
    places = right_VK.shape[1]
    found = {"sort_all": right_VK.all(axis=1).mean(), "sort_accuracy": right_VK.mean()}
    found |= {f"sort_accuracy_{place + 1}": right_VK[:, place].mean() for place in range(places)}
    found |= {"sort_all_chance": 1 / math.factorial(places), "sort_accuracy_chance": 1 / places}
    return {name: 100 * float(value) for name, value in found.items()}


def segment_order(seed: int, position: int) -> NDArray:
    """An order (K,) of a video's segments, drawn for its position, in which they are not."""
    rng = sampling.generator("segment_order", seed, 0, position)
    while True:
        order = rng.permutation(NUM_CLIPS)
        if (order != np.arange(NUM_CLIPS)).any():
            return order


def permute_segments(pixels_BTCHW: Tensor, orders: list[NDArray]) -> Tensor:
    """Each clip's segments, of equally many frames, in an order of its own."""
    segments = pixels_BTCHW.unflatten(1, (NUM_CLIPS, -1))
    order_BK = torch.from_numpy(np.stack(orders)).to(pixels_BTCHW.device)
    rows = torch.arange(len(segments), device=pixels_BTCHW.device)[:, None]
    return segments[rows, order_BK].flatten(1, 2)
