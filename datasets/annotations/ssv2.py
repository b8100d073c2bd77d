"""Something-Something V2: 174 actions without names of objects, and its multiple-choice form."""

import re
from pathlib import Path

from datasets.annotations.class_names import read_class_names
from datasets.annotations.files import GET_IT_AGAIN, items_of, json_lines_of, json_of
from datasets.annotations.label_list import FirstLabel, read_label_list
from datasets.annotations.layout import AUTHORS, Format, VideoFolder, check_split, choose
from datasets.records import ChoiceRecord, LabelledVideos, LabelRecord
from datasets.remote.addresses import Folder

LABELS = "something-something-v2-labels.json"
VALIDATION = "something-something-v2-validation.json"
LISTS = {"train": "sthv2_train_list_videos.txt", "val": "sthv2_val_list_videos.txt"}


def read(root: Path, split: str, videos: Folder, first_label: FirstLabel = "auto") -> LabelledVideos:
    """Read the authors' labels, with their validation file or with a list of names and labels.

    The validation file writes `[something]` in its templates where the labels write `something`.
    """
    check_split("ssv2", split, tuple(LISTS))
    formats = [Format("a list of names and labels", (LABELS, LISTS[split]))]
    if split == "val":
        formats.insert(0, Format(AUTHORS, (LABELS, VALIDATION)))
    found = choose("ssv2", split, root, formats)

    classes = read_class_names(found.paths[0])
    files = VideoFolder(videos, expected=".webm")
    if found.format.whose != AUTHORS:
        rows = read_label_list(found.paths[1], classes, first_label)
        records = [LabelRecord(files.path(row.name), row.label) for row in rows]
        return LabelledVideos(records, classes, "ssv2", split, found.source)

    known = {name: number for number, name in enumerate(classes)}
    records = []
    for row in items_of(json_of(found.paths[1]), str(found.paths[1])):
        name = re.sub(r"\[(\w[^\]]*)\]", r"\1", row.text("template"))
        if name not in known:
            raise ValueError(f"{row.place}: {name!r} is not in {LABELS}; {GET_IT_AGAIN}")
        records.append(LabelRecord(files.path(row.text("id") + ".webm"), known[name]))
    return LabelledVideos(records, classes, "ssv2", split, found.source)


def read_choices(path: Path, videos: Folder) -> list[ChoiceRecord]:
    """Read multiple choice (TVTSv2's val.jsonl): `clip_name`, `options` and `answer`, the number of the right one.

    ValueError, naming the line, if there are fewer than two options, if they are not texts, or if the answer is none.
    """
    files = VideoFolder(videos, expected=".webm")
    records = []
    for row in json_lines_of(path):
        options, answer = row.value("options"), row.value("answer")
        if not isinstance(options, list) or len(options) < 2 or not all(isinstance(text, str) for text in options):
            raise ValueError(f"{row.place}: options has to be a list of at least two texts; {GET_IT_AGAIN}")
        if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
            raise ValueError(f"{row.place}: answer {answer!r} is not the number of one of {len(options)} options")
        records.append(ChoiceRecord(files.path(row.text("clip_name")), tuple(options), answer))
    return records
