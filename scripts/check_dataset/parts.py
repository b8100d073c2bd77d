"""The parts of a configuration's data, each as the files annotate it, and which of its videos are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from configs.schema import RunConfig, SourceConfig
from datasets.pairs import PairTable
from datasets.records import Annotations, ChoiceRecord, LabelRecord, VideoTextRecord
from datasets.sources import are_there
from tasks.annotations import PARTS, open_table, read_split, setting_of, sources_of
from tasks.folders import media_folder, root_folder, video_folder


@dataclass(frozen=True)
class DataPart:
    """One part: what its files annotate, and how a run would read it.

    Attributes:
        name: train, eval, test, or the file of a source to pre-train on.
        split: whose data it is and the honest name of the part.
        source: which files it was read from, in words.
        there: (videos,) whether the file of each video of the table exists.
        sampling: how frames are chosen, one of the rules of `datasets.sampling`.
        folder: the folder that relative paths of its videos start from.
    """

    name: str
    split: str
    source: str
    table: PairTable
    there: NDArray[np.bool_]
    num_frames: int
    image_size: int
    sampling: str
    folder: str

    @property
    def files(self) -> set[str]:
        """The distinct files that are annotated."""
        return {self.table.path(video) for video in range(self.table.num_videos)}


def part_names(config: RunConfig) -> list[str]:
    """The parts that a configuration names, by which `read_part` finds them."""
    sources = sources_of(config)
    if sources:
        return [source.file for source in sources]
    return [part for part in PARTS if getattr(config.data, setting_of(config, part).removeprefix("data."))]


def read_part(config: RunConfig, name: str) -> DataPart:
    """Read one part. ValueError if its annotations cannot be read, or no video at all is there."""
    sources = sources_of(config)
    if sources:
        return _read_source(config, next(source for source in sources if source.file == name))

    part = next(part for part in PARTS if part == name)
    split = read_split(config, part)
    training = part == "train"
    table = PairTable.of(with_texts(split.annotations))

    return DataPart(
        name,
        f"{split.annotations.dataset} {split.annotations.split}",
        split.annotations.source,
        table,
        _there(table),
        config.video.num_frames,
        config.video.image_size,
        config.video.train_sampling if training else config.video.eval_sampling,
        str(video_folder(config)),
    )


def with_texts(annotations: Annotations) -> list[Any]:
    """The records with the texts that a model reads: captions, questions, options, or the names of classes."""
    found: list[Any] = []
    for record in annotations.records:
        if isinstance(record, ChoiceRecord):
            record = VideoTextRecord(record.video, record.options, record.start, record.end)
        elif isinstance(record, LabelRecord):
            record = VideoTextRecord(record.video, (annotations.classes[record.label],), record.start, record.end)
        found.append(record)
    return found


def overlaps(parts: Sequence[DataPart]) -> list[tuple[DataPart, DataPart, list[str]]]:
    """The files that two parts have in common, sorted, for every two that have any."""
    files = [part.files for part in parts]
    found = []
    for second in range(len(parts)):
        for first in range(second):
            if common := files[first] & files[second]:
                found.append((parts[first], parts[second], sorted(common)))
    return found


def _read_source(config: RunConfig, source: SourceConfig) -> DataPart:
    root = root_folder(config)
    _, table = open_table(config, source)
    there = _there(table)
    if not there.any():
        raise ValueError(
            f"{root / source.file}: none of {len(there)} videos or images is there; set media of the source"
        )

    return DataPart(
        source.file,
        f"{root.name} {source.file}",
        f"{root / source.file}; {table.left_out} rows without words left out",
        table,
        there,
        source.num_frames or config.video.num_frames,
        source.image_size or config.video.image_size,
        config.video.train_sampling,
        str(media_folder(config, source)),
    )


def _there(table: PairTable) -> NDArray[np.bool_]:
    videos = tqdm(range(table.num_videos), desc="looking for files", unit="file", leave=False, delay=2)
    return np.array(are_there(table, videos), np.bool_)
