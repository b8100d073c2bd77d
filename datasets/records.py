"""What every annotation file becomes: records, one a video or a part of one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from datasets.text import check_text

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SINGLE_ANSWER_WEIGHT = 0.2
"""The weight of the answer where a dataset gives one a question, as in the reference: one annotator of five."""


class ShardMember(NamedTuple):
    """A video or an image that is the part of a tar file from byte `offset` on.

    `shard_state` is the size of the tar file and its time of change (ns) when it was looked for. As a text it is what
    a person understands: the path of the tar file, a slash, the name in it.
    """

    shard: str
    name: str
    offset: int
    size: int
    shard_state: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"


@dataclass(frozen=True)
class VideoTextRecord:
    """A video, or its part from `start` to `end` in seconds, and the captions that describe it.

    `video` is an absolute path; a path of an image stands for a still clip.
    """

    video: str
    captions: tuple[str, ...]
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class QuestionRecord:
    """A question about a video, or about its part from `start` to `end` in seconds, and the answers it was given.

    `weights` are those of the answers in the training loss, `kind` is the dataset's own type of question in words.
    `question_id` is unique in its file. `video` is as in `VideoTextRecord`.
    """

    video: str
    question: str
    answers: tuple[str, ...]
    weights: tuple[float, ...]
    question_id: str
    kind: str | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class LabelRecord:
    """A video and the number of its class, from 0.

    `group` is what the video was cut from, where that is known: videos of one group belong into one split.
    """

    video: str
    label: int
    group: str | None = None


@dataclass(frozen=True)
class ChoiceRecord:
    """A video, texts of its own that might describe it, and which of them does, from 0."""

    video: str
    options: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class LabelledVideos:
    """One part of a set of classified videos; `classes` are the names by number, the rest as in `Annotations`."""

    records: list[LabelRecord]
    classes: tuple[str, ...]
    dataset: str
    split: str
    source: str


Record = TypeVar("Record", VideoTextRecord, QuestionRecord)


@dataclass(frozen=True)
class Annotations(Generic[Record]):
    """One part of a dataset, as its files describe it; whether the videos are there is not looked at.

    `split` is the honest name of the part: ActivityNet Captions' "test" is read from its validation set and called
    "val_1". `source` says in words which format was found in which files, and what was left out. Where the authors keep
    to themselves which caption belongs to which video, `labelled` is False, and a record holds what one row holds.
    `names` are what the files call the video of each record, which the path of the file that was found does not keep.
    `video_list` is the list of videos that the records were restricted to, if they were.
    """

    records: list[Record]
    dataset: str
    split: str
    source: str
    labelled: bool = True
    names: tuple[str, ...] = ()
    video_list: str | None = None


def is_image(path: str) -> bool:
    """Whether the file is taken as a still clip, which its suffix decides."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def check_video_path(path: str) -> None:
    """ValueError if no file can have this path, or if it is relative and leaves the folder it is relative to.

    An absolute path is taken as it is: whoever writes it says which file is meant.
    """
    if not path:
        raise ValueError("video is ''; write the path of a video or an image")
    check_text(path, "video")
    # Looking for dots first spares the millions of paths that have none.
    if os.pardir in path and os.path.normpath(path).split(os.sep)[0] == os.pardir:
        raise ValueError(
            f"video {path!r} leaves the folder of videos; set data.videos to a folder that holds all videos, and write "
            "paths from there"
        )


def split_missing(records: Sequence[Record], videos: Path) -> tuple[list[Record], list[Record]]:
    """Split the records into those whose file is there and those whose file is not, both in order.

    `videos` is the folder the error names: ValueError if no file at all is there. What the system will not look at, as
    a name that is too long, is not there.
    """
    there = {path: os.path.isfile(path) for path in {record.video for record in records}}
    present = [record for record in records if there[record.video]]
    missing = [record for record in records if not there[record.video]]
    if missing and not present:
        raise ValueError(
            f"none of the {len(there)} videos is in {videos} (the first is {missing[0].video}); "
            "set data.videos to the folder that holds them"
        )
    return present, missing
