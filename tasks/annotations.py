"""Find and read the annotation files of each part of a run's data; needs neither torch nor a video."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple

from configs.schema import PretrainConfig, RunConfig, SourceConfig
from datasets.annotations import manifest, public, recognition, video_list
from datasets.annotations.label_list import FirstLabel
from datasets.digest import records_digest
from datasets.objects.store import ObjectStore
from datasets.pairs import PairTable
from datasets.records import Annotations, QuestionRecord, Record, is_image, split_missing
from datasets.remote.addresses import Folder, shown
from datasets.sources import missing_of_some, open_source
from datasets.spoken_table import check_long_enough, open_speech
from tasks.folders import forget_copies, media_folder, root_folder, video_folder

Part = Literal["train", "eval", "test"]
FIRST_LABELS: dict[int | None, FirstLabel] = {None: "auto", 0: 0, 1: 1}
PARTS: tuple[Part, ...] = ("train", "eval", "test")


_checked: dict[tuple[Any, ...], Annotations] = {}
"""What `check_data` has read and its run has not taken yet, by `_files_key`."""


@dataclass(frozen=True)
class Split(Generic[Record]):
    """One part of the data: its annotations, split by whether the video file exists.

    Attributes:
        annotations: all records in the order of the files, with the honest name of the part.
        present, missing: the records whose video exists, and the others, both in file order.
    """

    annotations: Annotations[Record]
    present: list[Record]
    missing: list[Record]

    @property
    def num_annotated(self) -> int:
        """How many videos, or parts of videos, the annotations name.

        Each caption record counts as one video, whatever its file is called: two names in DiDeMo may resolve to the
        same file. Questions about one video, or one part of it, count once.
        """
        questions = [record for record in self.annotations.records if isinstance(record, QuestionRecord)]
        if not questions:
            return len(self.annotations.records)
        return len({(record.video, record.start, record.end) for record in questions})

    @property
    def missing_videos(self) -> list[dict[str, str]]:
        """Each missing video, or part of one, in the form of an evaluation's `failed` list."""
        clips = [(record.video, record.start, record.end) for record in self.missing]
        if any(isinstance(record, QuestionRecord) for record in self.missing):
            clips = list(dict.fromkeys(clips))
        return [{"video": shown(video), "reason": "no such file"} for video, _, _ in clips]


def check_data(config: RunConfig, evaluate_only: bool) -> None:
    """Read a run's annotations before torch is imported, which takes seconds, so that faults are reported at once.

    Raises the `ValueError`s that the run itself would raise: for malformed annotations, and if no video exists at all.
    An evaluation reads only the test set. A file of boxes is opened, and closed again.
    """
    forget_copies()
    if config.data.objects is not None:
        ObjectStore(root_folder(config) / config.data.objects)

    sources = sources_of(config)
    if sources and not evaluate_only:
        for source in sources:
            path, table = open_table(config, source)
            missing_of_some(path, table)

    if sources:
        for source in speech_of(config, evaluate_only):
            path, table = open_table(config, source)
            missing_of_some(path, table)
    else:
        parts: tuple[Part, ...] = ("test",) if evaluate_only else PARTS
        # Parts that name the same files are read once, and kept for the task.
        _checked.clear()
        for part in {named_files(config, part): part for part in reversed(parts)}.values():
            annotations = read_annotations(config, part)
            if not any(os.path.isfile(record.video) for record in annotations.records):
                split_missing(annotations.records, video_folder(config))
            _checked[_files_key(config, part)] = annotations


def sources_of(config: RunConfig) -> tuple[SourceConfig, ...]:
    """The files of pairs that pre-training reads through indices; empty for other tasks and for public datasets."""
    if not isinstance(config, PretrainConfig) or config.data.dataset != "manifest":
        return ()
    return config.data.sources or (SourceConfig(file=config.data.manifest),)


def speech_of(config: RunConfig, test_only: bool = False) -> tuple[SourceConfig, ...]:
    """The speech that evaluations of pre-training sort: the evaluation set and the test set, or the latter alone.

    Its videos are where those of the first source of speech are.
    """
    named = (config.data.eval_manifest, config.data.test_manifest)
    chosen = [file for file in named if file is not None]
    media = next((source.media for source in config.data.sources if source.kind == "speech"), None)
    return tuple(SourceConfig(file=file, kind="speech", media=media) for file in (chosen[-1:] if test_only else chosen))


def open_table(config: RunConfig, source: SourceConfig) -> tuple[Path, PairTable]:
    """The file or folder of a source, and the table that is read from it; ValueError for what does not fit."""
    path, media = root_folder(config) / source.file, media_folder(config, source)
    if source.kind == "pairs":
        return path, open_source(path, media)
    table = open_speech(path, media)
    if config.data.speech.cut == "drawn":
        check_long_enough(path, table)
    return path, table


def digest_of(config: RunConfig, split: Split) -> str:
    """The digest of the records whose video exists; videos count by the names that the annotation files give them.

    If the files give only paths, the path relative to the video folder counts, so the folder may move between runs.
    """
    folder = str(video_folder(config).absolute())
    if split.annotations.names:
        name_of = dict(zip(map(id, split.annotations.records), split.annotations.names, strict=True))
        names = [name_of[id(record)] for record in split.present]
    else:
        names = [shown(record.video).removeprefix(folder + os.sep) for record in split.present]
    return records_digest(split.present, names)


def read_split(config: RunConfig, part: Part, classes: Sequence[str] | None = None) -> Split:
    """Read the records of a part of the data: questions, labels or captions, as the task needs them.

    `classes` are the names by number that a trained head knows; by default the data themselves say. Without a test set
    the evaluation set takes its place; without an evaluation set, the training set does.
    `ValueError` if no video exists.
    """
    annotations = read_annotations(config, part, classes)
    present, missing = split_missing(annotations.records, video_folder(config))
    return Split(annotations, present, missing)


def read_annotations(config: RunConfig, part: Part, classes: Sequence[str] | None = None) -> Annotations:
    """Read the annotations of a part of the data without checking that the videos exist.

    What `check_data` has read is handed over once and not read again, unless `classes` number the labels otherwise.
    """
    checked = _checked.pop(_files_key(config, part), None)
    if checked is not None and classes is None:
        return checked

    annotations = _read_whole(config, part, classes)
    seconds = config.data.first_seconds
    if seconds is None:
        return annotations
    return replace(annotations, records=[_beginning(record, seconds) for record in annotations.records])


def _beginning(record: Record, seconds: float) -> Record:
    """The record of a video's first seconds, or those of its part; an image has no length."""
    if is_image(record.video):
        return record
    end = (record.start or 0.0) + seconds
    return replace(record, end=end if record.end is None else min(record.end, end))


def _read_whole(config: RunConfig, part: Part, classes: Sequence[str] | None) -> Annotations:
    named, root, videos = named_files(config, part), root_folder(config), video_folder(config)
    name = named.name
    if config.data.dataset != "manifest":
        if config.reads_labels:
            first_label = FIRST_LABELS[config.data.first_label]
            annotations = recognition.read(config.data.dataset, root, name, videos, first_label, classes)
        else:
            annotations = public.read(config.data.dataset, root, name, videos)
        return annotations if named.video_list is None else video_list.restrict(annotations, root, named.video_list)
    if config.reads_labels:
        if config.data.first_label is not None:
            raise ValueError("data.first_label: has no effect on a manifest, whose labels are names; remove it")
        found = manifest.read_labels(root / name, videos, classes)
        return Annotations(list(found.records), root.resolve().name, found.split, found.source, classes=found.classes)
    read: Callable[[Path, Folder], list[Any]] = manifest.read_questions if config.reads_questions else manifest.read
    if config.reads_options and (part != "train" or manifest.holds_choices(root / name)):
        read = manifest.read_choices
    return Annotations(read(root / name, videos), root.resolve().name, Path(name).stem, f"manifest {root / name}")


def _files_key(config: RunConfig, part: Part) -> tuple[Any, ...]:
    """All that decides what `read_annotations` reads."""
    return type(config), config.data, named_files(config, part)


class NamedFiles(NamedTuple):
    """The manifest or split that a part is read from, and the video list that restricts it."""

    name: str
    video_list: str | None = None

    def __str__(self) -> str:
        return self.name if self.video_list is None else f"{self.name} of {self.video_list}"


def named_files(config: RunConfig, part: Part) -> NamedFiles:
    """The files of a part: its own setting's, or else the nearest earlier part's (test, then eval, then train)."""
    for candidate in reversed(PARTS[: PARTS.index(part) + 1]):
        name = getattr(config.data, setting_of(config, candidate).removeprefix("data."))
        if name is not None:
            return NamedFiles(name, getattr(config.data, f"{candidate}_list"))
    raise AssertionError("data.manifest and data.train_split are never None")


def setting_of(config: RunConfig, part: Part) -> str:
    """The configuration key that names a part."""
    if config.data.dataset != "manifest":
        return f"data.{part}_split"
    return {"train": "data.manifest", "eval": "data.eval_manifest", "test": "data.test_manifest"}[part]
