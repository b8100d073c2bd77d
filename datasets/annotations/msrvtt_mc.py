"""MSR-VTT-MC: which of five captions is of the video, made by JSFusion's authors; training takes MSR-VTT's captions."""

from pathlib import Path

from datasets.annotations import msrvtt, vindlu
from datasets.annotations.files import json_lines_of
from datasets.annotations.layout import Format, VideoFolder, check_split, choose
from datasets.records import Annotations, ChoiceRecord, VideoTextRecord
from datasets.remote.addresses import Folder

SPLITS = ("train", "val", "test", "train_7k", "train_9k")
LINES = "a list with options"


def read(root: Path, split: str, videos: Folder) -> Annotations[ChoiceRecord] | Annotations[VideoTextRecord]:
    """Read VindLU's `msrvtt_mc_test.json`, or `mc_test.jsonl` (clip_name, options, answer); captions for training.

    There is no validation set: "val" is the test set, and comes back as "test". "train" is MSR-VTT's `train_7k`, as
    none of its videos is asked about; both training splits are read from MSR-VTT's files in the same folder.
    """
    check_split("msrvtt_mc", split, SPLITS)
    if split.startswith("train"):
        part = "train_7k" if split == "train" else split
        choose("msrvtt_mc", split, root, msrvtt.formats(part))  # so that errors name this data set
        return msrvtt.read(root, part, videos)

    formats = (Format(vindlu.VINDLU, ("msrvtt_mc_test.json",)), Format(LINES, ("mc_test.jsonl",)))
    found = choose("msrvtt_mc", split, root, formats)
    path, folder = found.paths[0], VideoFolder(videos)
    if found.format.whose == vindlu.VINDLU:
        records, names = vindlu.read_choices(path, folder)
    else:
        rows = json_lines_of(path)
        names = tuple(row.text("clip_name") for row in rows)
        records = [vindlu.choice_of(row, folder.path(name), "options") for row, name in zip(rows, names, strict=True)]
    return Annotations(records, "msrvtt_mc", "test", found.source, names=names)
