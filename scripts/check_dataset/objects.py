"""The boxes that go along with the clips of a part: which clips have none, how many others have, and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.schema import RunConfig
from datasets.objects.along import find_row
from datasets.objects.store import ObjectStore
from scripts.check_dataset.look import Seen
from scripts.check_dataset.parts import DataPart
from scripts.parts.box_pictures import save_clip
from scripts.parts.worker_pool import Failure
from tasks.data import check_frames
from tasks.folders import root_folder

SHOWN = 3


@dataclass(frozen=True)
class BoxNumbers:
    """Of the clips of a part that are there.

    Attributes:
        without: those that the file does not know; failed: those whose boxes could not be made.
        per_frame, trajectories: means over all others.
    """

    without: int
    failed: int
    per_frame: float
    trajectories: float


def open_boxes(config: RunConfig) -> ObjectStore | None:
    """The file of `data.objects`, None without; ValueError if it is of other frames than the configuration samples."""
    if config.data.objects is None:
        return None
    store = ObjectStore(root_folder(config) / config.data.objects)
    check_frames(store, config)
    return store


def count_boxes(store: ObjectStore, part: DataPart) -> BoxNumbers:
    """Look up every clip that is there."""
    without, failed, boxes, trajectories = 0, 0, [], []
    for video in np.flatnonzero(part.there).tolist():
        row = find_row(store, part.table, video, part.folder)
        if row is None:
            without += 1
        elif store.has_failed(row):
            failed += 1
        else:
            found = store.at(row)
            boxes.append(float((found.classes > 0).sum(axis=1).mean()))
            trajectories.append(int((found.trajectory_ids > 0).sum()))
    return BoxNumbers(without, failed, _mean(boxes), _mean(trajectories))


def draw_boxes(store: ObjectStore, part: DataPart, results: Mapping[int, Seen | Failure], out: Path) -> None:
    """Draw boxes and trajectories of the first clips on their frames, as `objects_PART_VIDEO.png`."""
    shown = {video: seen.clip for video, seen in results.items() if isinstance(seen, Seen) and seen.clip is not None}
    for video, clip in list(shown.items())[:SHOWN]:
        row = find_row(store, part.table, video, part.folder)
        if row is not None and not store.has_failed(row):
            path = out / f"objects_{part.name.replace('/', '_')}_{video}.png"
            save_clip(path, clip, store.at(row), store.settings.classes)


def _mean(values: list[float] | list[int]) -> float:
    return float(np.mean(values)) if values else 0.0
