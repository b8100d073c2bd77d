"""Kinetics-400: which videos survive differs from copy to copy, so any list of videos and classes is read."""

from pathlib import Path, PurePosixPath

from datasets.annotations.class_names import read_class_names
from datasets.annotations.files import GET_IT_AGAIN
from datasets.annotations.label_list import FirstLabel, read_label_list
from datasets.annotations.layout import Format, VideoFolder, check_split, choose
from datasets.records import LabelledVideos, LabelRecord
from datasets.remote.addresses import Folder

CLASSES = ("label_map_k400.txt", "kinetics_400_labels.csv")
LISTS = {
    "train": ("train.txt",),
    "val": ("kinetics400_val_list_videos.tsv", "val.txt", "kinetics_video_val_se320.txt"),
}


def read(root: Path, split: str, videos: Folder, first_label: FirstLabel = "auto") -> LabelledVideos:
    """Read a list of names and labels, and a list of the classes.

    TVTSv2's list has a header, and its `.mkv` videos lie in folders by class; other lists have neither. A video is
    found by its file name alone, with any suffix.
    """
    check_split("kinetics400", split, tuple(LISTS))
    formats = [
        Format(f"the list {name}", (name, classes)) for name in LISTS[split] for classes in (*CLASSES, "label2id.json")
    ]
    found = choose("kinetics400", split, root, formats)

    classes = read_class_names(found.paths[1])
    files = VideoFolder(videos)
    rows = read_label_list(found.paths[0], classes, first_label)
    names = [PurePosixPath(row.name).name for row in rows]

    # Counting is quadratic: only look for a repeated name if there is one.
    repeated = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if repeated is not None:
        raise ValueError(f"{found.paths[0]}: {repeated!r} stands twice; {GET_IT_AGAIN}")

    records = [LabelRecord(files.path(name), row.label) for name, row in zip(names, rows, strict=True)]
    return LabelledVideos(records, classes, "kinetics400", split, found.source)
