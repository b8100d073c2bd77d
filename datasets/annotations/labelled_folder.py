"""Your own classified videos: a folder of `class/video`, or a folder with a `labels.csv`."""

from collections.abc import Sequence
from pathlib import Path

from datasets.annotations.files import csv_of
from datasets.annotations.layout import VIDEO_SUFFIXES
from datasets.records import LabelledVideos, LabelRecord, check_video_path
from datasets.remote.addresses import Folder, RemoteFolder, resolve
from datasets.remote.folders import names_below

TABLE = "labels.csv"


def read(
    root: Path, split: str | None = None, classes: Sequence[str] | None = None, videos: Folder | None = None
) -> LabelledVideos:
    """Read `labels.csv` (file, label, and optionally group and split); without it, one folder per class.

    Args:
        split: take only the rows of this split; None takes all.
        classes: names by number, if a trained model fixes them; by default all classes of the folder, in alphabetical
            order.
        videos: the folder, or its address, in which the videos are; by default `root`.

    ValueError if there are no videos, no such split, or a class that is not in `classes`.
    """
    table, videos = root / TABLE, videos or root
    rows = _of_table(table) if table.is_file() else _of_folders(videos)
    if not rows:
        raise ValueError(f"{root}: has neither {TABLE} nor folders of videos, one a class")

    known = tuple(classes) if classes is not None else tuple(sorted({row["label"] for row in rows}))

    if split is not None:
        splits = sorted({row["split"] for row in rows} - {""})
        rows = [row for row in rows if row["split"] == split]
        if not rows:
            has = ", ".join(splits) if splits else f"none: write a column split in {TABLE}, or take the split all"
            raise ValueError(f"{root}: has no videos of the split {split!r}; its splits are {has}")

    records = []
    for row in rows:
        if row["label"] not in known:
            listed = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            raise ValueError(f"{row['place']}: class {row['label']!r} is not one of the {len(known)} known: {listed}")
        records.append(LabelRecord(resolve(videos, row["file"]), known.index(row["label"]), row["group"] or None))

    source = TABLE if table.is_file() else "one folder a class"
    return LabelledVideos(records, known, root.name, split or "all", source)


def _of_table(path: Path) -> list[dict[str, str]]:
    rows = []
    for row in csv_of(path, ("file", "label")):
        file = row.text("file")
        try:
            check_video_path(file)
        except ValueError as error:
            raise ValueError(f"{row.place}: {error}") from None
        extra = {column: str(row.fields.get(column, "")).strip() for column in ("group", "split")}
        rows.append({"place": row.place, "file": file, "label": row.text("label").strip(), **extra})
    return rows


def _of_folders(root: Folder) -> list[dict[str, str]]:
    if isinstance(root, RemoteFolder):
        parts = (name.split("/") for name in names_below(root))
        named = [tuple(names) for names in parts if len(names) == 2 and names[1].lower().endswith(VIDEO_SUFFIXES)]
        return [
            {"place": str(root), "file": f"{label}/{name}", "label": label, "group": "", "split": ""}
            for label, name in sorted(named)
        ]

    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder")
    return [
        {"place": str(path), "file": f"{folder.name}/{path.name}", "label": folder.name, "group": "", "split": ""}
        for folder in sorted(root.iterdir())
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]
