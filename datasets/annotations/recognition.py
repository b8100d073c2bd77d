"""Which parser reads each set of classified videos, and of videos with options of their own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.annotations import hmdb51, kinetics400, labelled_folder, ssv2, ucf101
from datasets.annotations.label_list import FirstLabel
from datasets.annotations.layout import Format, check_split, choose
from datasets.records import Annotations, ChoiceRecord, LabelledVideos
from datasets.remote.addresses import Folder

ALL = "all"
"""The split of a folder of your own that takes every row, whatever its split."""
CHOICES = "val.jsonl"

Read = Callable[[Path, str, Folder, FirstLabel], LabelledVideos]


def _without_numbers(read: Callable[[Path, str, Folder], LabelledVideos]) -> Read:
    """A reader whose files leave no doubt whether classes count from 0 or from 1."""

    def read_split(root: Path, split: str, videos: Folder, first_label: FirstLabel) -> LabelledVideos:
        if first_label != "auto":
            raise ValueError("data.first_label: has no effect here, as these files fix where numbers begin; remove it")
        return read(root, split, videos)

    return read_split


READERS: dict[str, Read] = {
    "hmdb51": _without_numbers(hmdb51.read),
    "ucf101": _without_numbers(ucf101.read),
    "kinetics400": kinetics400.read,
    "ssv2": ssv2.read,
}


def read(
    dataset: str,
    root: Path,
    split: str,
    videos: Folder,
    first_label: FirstLabel = "auto",
    classes: Sequence[str] | None = None,
) -> Annotations:
    """Read a split with its labels, or, of `ssv2_mc`, with the options of each video.

    Args:
        first_label: where the numbers of a list begin, if the list leaves that open.
        classes: names by number, if a trained head fixes them; labels are then numbers of these.

    ValueError for a class that is not one of `classes`, and for what the dataset's own reader refuses.
    """
    if dataset == "ssv2_mc":
        return _read_choices(root, split, videos)

    if dataset == "labelled":
        if first_label != "auto":
            raise ValueError("data.first_label: has no effect on a folder of your own, whose labels are names")
        found = labelled_folder.read(root, None if split == ALL else split, classes, videos)
    else:
        found = READERS[dataset](root, split, videos, first_label)
        found = found if classes is None else _renumbered(found, classes)
    return Annotations(list(found.records), found.dataset, found.split, found.source, classes=tuple(found.classes))


def _read_choices(root: Path, split: str, videos: Folder) -> Annotations[ChoiceRecord]:
    check_split("ssv2_mc", split, ("val",))
    found = choose("ssv2_mc", split, root, [Format("TVTSv2's list", (CHOICES,))])
    return Annotations(ssv2.read_choices(found.paths[0], videos), "ssv2_mc", split, found.source)


def _renumbered(found: LabelledVideos, classes: Sequence[str]) -> LabelledVideos:
    """The same records with the numbers that their classes have in `classes`."""
    number_of = {name: number for number, name in enumerate(classes)}
    records = []
    for record in found.records:
        name = found.classes[record.label]
        if name not in number_of:
            listed = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise ValueError(f"{found.source}: class {name!r} is not one of the {len(classes)} known: {listed}")
        records.append(replace(record, label=number_of[name]))
    return replace(found, records=records, classes=tuple(classes))
