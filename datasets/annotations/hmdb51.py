"""HMDB-51: 6766 clips of 51 actions, in three splits with 70 training and 30 test clips per class."""

import re
from pathlib import Path

from datasets.annotations.class_names import read_class_names
from datasets.annotations.files import GET_IT_AGAIN, csv_of, lines_of
from datasets.annotations.label_list import read_label_list
from datasets.annotations.layout import AUTHORS, Format, VideoFolder, check_split, choose
from datasets.records import LabelledVideos, LabelRecord
from datasets.remote.addresses import Folder

OFFICIAL = "testTrainMulti_7030_splits"
USES = {"unused": "0", "train": "1", "test": "2"}
"""How a clip is used in a split, and the number that the authors' files write for it."""
SPLITS = ("train", "test", *(f"{use}{number}" for use in USES for number in (1, 2, 3)))
TABLE = "hmdb51.csv"
RELEASE_LIST = "split_1_test_list.tsv"
RELEASE_CLASSES = "label2id.json"


def read(root: Path, split: str, videos: Folder) -> LabelledVideos:
    """Read the authors' split files, or one table of all splits (hmdb51.csv), or TVTSv2's list of split 1's test clips.

    "train" and "test" are split 1; "train2" and so on select the others. Classes are in alphabetical order, or, with
    TVTSv2's list, in the order of its label2id.json. Published lists of names come in two more orders, so the authors'
    files, which name the class of each clip, are read by name and not by number.
    """
    check_split("hmdb51", split, SPLITS)
    part = split if split[-1].isdigit() else f"{split}1"
    use, number = part[:-1], int(part[-1])

    folder = find_folder(OFFICIAL, root)
    if folder is not None:
        clips, source = _official(folder, USES[use], number), f"{AUTHORS} ({OFFICIAL})"
    else:
        formats = [Format("one table of all splits", (TABLE,), part)]
        if part == "test1":
            formats.append(Format("TVTSv2's list", (RELEASE_LIST, RELEASE_CLASSES), part))
        found = choose("hmdb51", split, root, formats)
        source = found.source
        if found.paths[0].name == RELEASE_LIST:
            classes = read_class_names(found.paths[1])
            rows = read_label_list(found.paths[0], classes, first_label=1)
            files = VideoFolder(videos, expected=".avi")
            records = [LabelRecord(files.path(Path(row.name).name), row.label) for row in rows]
            return LabelledVideos(records, classes, "hmdb51", part, source)
        clips = _table(found.paths[0], USES[use], number)

    # All clips of the table define the classes, whatever their split.
    classes = tuple(sorted({name for name, _, _ in clips}))
    files = VideoFolder(videos, expected=".avi")
    records = [LabelRecord(files.path(clip), classes.index(name)) for name, clip, chosen in clips if chosen]
    if not records:
        raise ValueError(f"{source}: no clip of {part}; {GET_IT_AGAIN}")
    return LabelledVideos(records, classes, "hmdb51", part, source)


def find_folder(name: str, root: Path) -> Path | None:
    """The folder of that name in `root` or `root/annotations`; None if neither holds it."""
    return next((folder / name for folder in (root, root / "annotations") if (folder / name).is_dir()), None)


def _official(folder: Path, wanted: str, number: int) -> list[tuple[str, str, bool]]:
    """All clips, one file per class, as (class, clip, whether the clip is in the wanted part)."""
    clips = []
    pattern = re.compile(rf"(.+)_test_split{number}\.txt")
    for path in sorted(folder.iterdir()):
        found = pattern.fullmatch(path.name)
        if found is None:
            continue
        for place, line in lines_of(path):
            clip, _, use = line.rpartition(" ")
            if not clip or use not in USES.values():
                raise ValueError(f"{place}: found {line!r}, not a clip and 0, 1 or 2; {GET_IT_AGAIN}")
            clips.append((found[1], clip.strip(), use == wanted))
    if not clips:
        raise ValueError(f"{folder}: holds no CLASS_test_split{number}.txt; {GET_IT_AGAIN}")
    return clips


def _table(path: Path, wanted: str, number: int) -> list[tuple[str, str, bool]]:
    """The same from a single table, whose labels end in `_test`."""
    rows = csv_of(path, ("video_id", "label", f"split{number}"))
    return [
        (row.text("label").removesuffix("_test"), row.text("video_id"), row.text(f"split{number}").strip() == wanted)
        for row in rows
    ]
