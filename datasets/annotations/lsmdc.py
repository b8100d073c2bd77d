"""LSMDC: clips of a few seconds from 200 movies, with a sentence each, in which names are `SOMEONE`."""

from pathlib import Path

from datasets.annotations import vindlu
from datasets.annotations.files import GET_IT_AGAIN, lines_of
from datasets.annotations.layout import AUTHORS, Format, VideoFolder, check_split, choose
from datasets.records import Annotations, VideoTextRecord
from datasets.remote.addresses import Folder

SPLITS = ("train", "val", "test")
TABLES = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
"""The authors' tables; the test set of retrieval is the thousand clips of the 2016 challenge."""
VINDLU = {"train": "lsmdc_ret_train.json", "val": "lsmdc_ret_val_1000.json", "test": "lsmdc_ret_test_1000.json"}


def read(root: Path, split: str, videos: Folder) -> Annotations:
    """Read the authors' table, or VindLU's `lsmdc_ret_{train,val_1000,test_1000}.json`.

    A table has no header; its columns, between tabs, are the clip, its times, and the sentence in the last one. Clips
    are `.avi` files, in a folder for each movie or not.
    """
    check_split("lsmdc", split, SPLITS)
    formats = (Format(AUTHORS, (TABLES[split],)), Format(vindlu.VINDLU, (VINDLU[split],)))
    found = choose("lsmdc", split, root, formats)
    path = found.paths[0]
    texts = _sentences(path) if found.format.whose == AUTHORS else vindlu.read_captions(path)

    folder = VideoFolder(videos, expected=".avi")
    # A clip's name holds its times, such as 00.44.250: what stands after the last dot is no suffix.
    records = [VideoTextRecord(folder.path(_file(name)), tuple(captions)) for name, captions in texts.items()]
    return Annotations(records, "lsmdc", split, found.source, names=tuple(texts))


def _sentences(path: Path) -> dict[str, list[str]]:
    sentences: dict[str, list[str]] = {}
    for place, line in lines_of(path):
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) < 2 or not columns[0] or not columns[-1]:
            raise ValueError(f"{place}: {len(columns)} columns between tabs, not a clip and a sentence; {GET_IT_AGAIN}")
        if columns[0] in sentences:
            raise ValueError(f"{place}: clip {columns[0]!r} stands in an earlier line too; {GET_IT_AGAIN}")
        sentences[columns[0]] = [columns[-1]]
    return sentences


def _file(name: str) -> str:
    return name if name.lower().endswith((".avi", ".mp4", ".mkv", ".webm")) else f"{name}.avi"
