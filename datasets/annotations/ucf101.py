"""UCF-101: 13320 clips of 101 actions in three splits, by groups of clips from one video."""

import re
from pathlib import Path, PurePosixPath

from datasets.annotations.class_names import read_class_names
from datasets.annotations.files import GET_IT_AGAIN, lines_of
from datasets.annotations.label_list import read_label_list
from datasets.annotations.layout import AUTHORS, Format, VideoFolder, check_split, choose
from datasets.records import LabelledVideos, LabelRecord
from datasets.remote.addresses import Folder

CLASSES = "classInd.txt"
SPLITS = ("train", "test", *(f"{use}{number}" for use in ("train", "test") for number in (1, 2, 3)))
RELEASE_LIST = "testlist01_new.tsv"
RELEASE_CLASSES = "label2id.json"


def read(root: Path, split: str, videos: Folder) -> LabelledVideos:
    """Read the authors' `classInd.txt` and lists, or TVTSv2's list of split 1's test clips.

    "train" and "test" are split 1. The class of a clip is its folder, because the files of one class, HandstandPushups,
    spell it differently. The authors number classes from 1.
    """
    check_split("ucf101", split, SPLITS)
    part = split if split[-1].isdigit() else f"{split}1"
    use, number = part[:-1], part[-1]
    formats = [Format(AUTHORS, (CLASSES, f"{use}list0{number}.txt"), part)]
    if part == "test1":
        formats.append(Format("TVTSv2's list", (RELEASE_CLASSES, RELEASE_LIST), part))
    found = choose("ucf101", split, root, formats)
    classes = read_class_names(found.paths[0])

    files = VideoFolder(videos, expected=".avi")
    if found.format.whose == AUTHORS:
        rows = _official(found.paths[1], classes)
    else:
        rows = [(row.name, row.label) for row in read_label_list(found.paths[1], classes, first_label=1)]
    records = [LabelRecord(files.path(PurePosixPath(name).name), label, group_of(name)) for name, label in rows]
    return LabelledVideos(records, classes, "ucf101", part, found.source)


def group_of(name: str) -> str | None:
    """The video that a clip was cut from: clips of one class that share the number after `_g`."""
    found = re.search(r"v_(.+_g\d+)_c\d+", name)
    return found[1] if found else None


def _official(path: Path, classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """Names and classes; training lists also give the number of the class, which has to match the folder."""
    known = {name: number for number, name in enumerate(classes)}
    rows = []
    for place, line in lines_of(path):
        name, *number = line.split()
        folder = PurePosixPath(name).parent.name
        if folder not in known:
            raise ValueError(f"{place}: {folder!r} is not in {CLASSES}; {GET_IT_AGAIN}")
        if number and number != [str(known[folder] + 1)]:
            raise ValueError(f"{place}: number {number[0]} is not that of {folder!r} in {CLASSES}; {GET_IT_AGAIN}")
        rows.append((name, known[folder]))
    return rows
