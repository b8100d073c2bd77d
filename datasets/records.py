"""Records, into which every annotation file is read: one per video, or per part of a video."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from datasets.remote.addresses import Folder, check_address, is_address, path_of, shown
from datasets.remote.fetch import look_at_all
from datasets.remote.streams import RemoteError
from datasets.text import check_text

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
ADDRESSES_LOOKED_FOR = 8
SINGLE_ANSWER_WEIGHT = 0.2
"""The weight of an answer if a dataset has one per question. As in the reference: one annotator of five."""


class ShardMember(NamedTuple):
    """A video or an image inside a tar file: `size` bytes from byte `offset` on.

    `shard_state` is the size and modification time (ns) of the tar file when it was indexed. `str` gives a readable
    path: the tar file, a slash, the name in it.
    """

    shard: str
    name: str
    offset: int
    size: int
    shard_state: tuple[int, int]

    def __str__(self) -> str:
        return f"{shown(self.shard)}/{self.name}"


@dataclass(frozen=True)
class VideoTextRecord:
    """A video, or its part from `start` to `end` in seconds, and the captions that describe it.

    `video` is an absolute path or an address; the path of an image stands for a still clip.
    """

    video: str
    captions: tuple[str, ...]
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class QuestionRecord:
    """A question about a video, or about its part from `start` to `end` in seconds, and its answers.

    `weights` weigh the answers in the training loss; `kind` is the dataset's own type of question in words.
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

    `group` names the longer video it was cut from, if known: videos of one group belong in one split.
    """

    video: str
    label: int
    group: str | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class ChoiceRecord:
    """A video, texts of its own that might describe it, and which of them does, from 0."""

    video: str
    options: tuple[str, ...]
    answer: int
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class LabelledVideos:
    """One split of a set of classified videos; `classes` are the names by number, the rest as in `Annotations`."""

    records: list[LabelRecord]
    classes: tuple[str, ...]
    dataset: str
    split: str
    source: str


Record = TypeVar("Record", VideoTextRecord, QuestionRecord, LabelRecord, ChoiceRecord)


@dataclass(frozen=True)
class Annotations(Generic[Record]):
    """One split of a dataset, as its files describe it; whether the videos exist is not checked.

    `split` is the honest name: ActivityNet Captions' "test" is read from its validation set and called "val_1".
    `source` says in words which format was found in which files, and what was left out. `labelled` is False if the
    authors have not published which caption belongs to which video; a record then just holds one row. `names` are the
    names of the videos in the annotation files, which the paths on disk do not keep. `video_list` is the list of videos
    that the records were restricted to, if any. `classes` are the names by number where records have a label.
    """

    records: list[Record]
    dataset: str
    split: str
    source: str
    labelled: bool = True
    names: tuple[str, ...] = ()
    video_list: str | None = None
    classes: tuple[str, ...] = ()


def is_image(path: str) -> bool:
    """Whether the file is read as a still clip; its suffix decides."""
    return path_of(path).lower().endswith(IMAGE_SUFFIXES)


def check_video_path(path: str) -> None:
    """ValueError if no file can have this path, or if it is relative and leaves its folder.

    An absolute path is accepted as it is.
    """
    if not path:
        raise ValueError("video is ''; write the path of a video or an image")
    check_text(path, "video")
    if "://" in path:
        check_address(path)
        return
    # Normalising is slow, and there are millions of paths: only look closer at those with "..".
    if os.pardir in path and os.path.normpath(path).split(os.sep)[0] == os.pardir:
        raise ValueError(
            f"video {path!r} leaves the folder of videos; set data.videos to a folder that holds all videos, and write "
            "paths from there"
        )


def split_missing(records: Sequence[Record], videos: Folder) -> tuple[list[Record], list[Record]]:
    """Split the records into those whose file exists and those whose file is missing, both in order.

    ValueError, naming the folder `videos`, if no file exists at all. A path that the system rejects, such as one that
    is too long, counts as missing. Addresses count as there, so that no run begins with a request for each: what is not
    is named when it is read. A few are looked for, and it is an error if none of these can be had, nor any file here.
    """
    paths = dict.fromkeys(record.video for record in records)
    there = {path: is_address(path) or os.path.isfile(path) for path in paths}
    elsewhere = [path for path in paths if is_address(path)]
    if elsewhere and len(elsewhere) == sum(there.values()):
        _check_some(elsewhere)
    present = [record for record in records if there[record.video]]
    missing = [record for record in records if not there[record.video]]
    if missing and not present:
        raise ValueError(
            f"none of the {len(there)} videos is in {videos} (the first is {missing[0].video}); "
            "set data.videos to the folder that holds them"
        )
    return present, missing


def _check_some(addresses: Sequence[str]) -> None:
    """ValueError, naming the first, if none of a few evenly spread files can be had."""
    some = addresses[:: -(-len(addresses) // ADDRESSES_LOOKED_FOR)]
    errors = [error for error in look_at_all(some) if isinstance(error, RemoteError)]
    if len(errors) == len(some):
        raise ValueError(
            f"none of {len(some)} videos looked for can be had, the first is {shown(some[0])}: {errors[0]}"
        )
