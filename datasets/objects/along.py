"""Boxes of a file that go along with clips: as extras of each clip, on the frames that were sampled from it."""

import os
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from datasets.objects.store import ObjectStore, clip_name
from datasets.pairs import PairTable
from datasets.remote.addresses import is_address, shown
from datasets.video.files import DecodeError
from datasets.video_text import Extra

BOXES, CLASSES, TRAJECTORY_IDS = "boxes", "classes", "trajectory_ids"
"""Extras of a clip: (T, O, 4) float32, -1 for padding; (T, O) int64 and (2 O,) int64, 0 for padding."""
CLIPS_LOOKED_FOR = 1000


@dataclass(frozen=True)
class StoredPart:
    """One part of the boxes of a clip; an `Extra` of `VideoTextDataset`.

    Attributes:
        store: the file of boxes.
        part: which extra this is.
        folder: the folder of the videos, below which names in the file begin.
    """

    store: ObjectStore
    part: Literal["boxes", "classes", "trajectory_ids"]
    folder: str

    def __call__(self, table: PairTable, video: int, times: Tensor) -> Tensor:
        """The part of a video's boxes. ValueError if the file lacks the video, DecodeError if its boxes failed."""
        row = row_of(self.store, table, video, self.folder)
        if self.store.has_failed(row):
            raise DecodeError(table.path(video), f"{self.store.path} has no boxes of it, as they could not be made")
        return torch.from_numpy(getattr(self.store.at(row), self.part))


def object_extras(store: ObjectStore, folder: str) -> dict[str, Extra]:
    """What goes along with each clip, by name."""
    return {
        BOXES: StoredPart(store, "boxes", folder),
        CLASSES: StoredPart(store, "classes", folder),
        TRAJECTORY_IDS: StoredPart(store, "trajectory_ids", folder),
    }


def find_row(store: ObjectStore, table: PairTable, video: int, folder: str) -> int | None:
    """The row of a video's boxes; None if the file does not know the video."""
    return store.find(_names(table, video, folder))


def row_of(store: ObjectStore, table: PairTable, video: int, folder: str) -> int:
    """The row of a video's boxes. ValueError, naming the file and the entry it lacks, if there is none."""
    row = find_row(store, table, video, folder)
    if row is None:
        raise ValueError(
            f"{store.path}: has no entry {_names(table, video, folder)[0]}; prepare its boxes with `python -m "
            "scripts.prepare_objects`, or leave the clip out"
        )
    return row


def _names(table: PairTable, video: int, folder: str) -> list[str]:
    """A video's path below the folder, then as it is listed."""
    listed, span = table.paths[video], table.span(video)
    if is_address(listed):
        named = shown(listed)
        return [clip_name(path, *span) for path in (named.removeprefix(f"{folder.rstrip('/')}/"), named)]
    whole, top = os.path.abspath(listed), os.path.join(os.path.abspath(folder), "")
    return [clip_name(path, *span) for path in (whole.removeprefix(top), listed)]


def check_boxes(store: ObjectStore, table: PairTable, folder: str) -> None:
    """Look for about a thousand evenly spread clips; ValueError, naming file and entry, if one has no boxes.

    It also reads the names of the file, before workers are forked, so that they share them.
    """
    step = -(-table.num_videos // CLIPS_LOOKED_FOR)
    for video in range(0, table.num_videos, step):
        row_of(store, table, video, folder)
