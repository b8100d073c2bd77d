"""Lists of videos and their classes, by number (from 0 or 1) or by name, with or without a header."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from datasets.annotations.files import GET_IT_AGAIN, lines_of

FirstLabel = Literal["auto", 0, 1]


class Labelled(NamedTuple):
    """A line: its place, the name of the video, and the class, counted from 0."""

    place: str
    name: str
    label: int


def read_label_list(path: Path, classes: Sequence[str], first_label: FirstLabel = "auto") -> list[Labelled]:
    """The videos of a list: name, then class, separated by a tab, a comma or blanks.

    The first line is a header if its class is neither a number nor a class name, while the class of the second line
    is. Whether numbers begin at 0 or 1 follows from the folders of the videos, if these are class names; else from a 0,
    or from the number of classes. ValueError if that stays open, for an unknown class, and for a number out of range.
    """
    rows = [(place, *_split(place, line)) for place, line in lines_of(path)]
    known = {name: number for number, name in enumerate(classes)}
    if len(rows) > 1 and not _is_label(rows[0][2], known) and _is_label(rows[1][2], known):
        rows = rows[1:]

    for place, _, text in rows:
        if not _is_label(text, known):
            raise ValueError(f"{place}: class {text!r} is neither a number nor one of the {len(classes)} classes")

    numbers = [int(text) for _, _, text in rows if text not in known]
    first = _first_label(path, rows, known, first_label) if numbers else 0
    labelled = []
    for place, name, text in rows:
        label = known[text] if text in known else int(text) - first
        if not 0 <= label < len(classes):
            raise ValueError(f"{place}: label {text} is out of range; the {len(classes)} classes count from {first}")
        labelled.append(Labelled(place, name, label))
    return labelled


def _split(place: str, line: str) -> tuple[str, str]:
    for separator in ("\t", ","):
        if separator in line:
            name, _, label = line.rpartition(separator)
            return name.strip().strip('"'), label.strip().strip('"')
    found = re.fullmatch(r"(.*\S)\s+(\S+)", line)
    if found is None:
        raise ValueError(f"{place}: found {line!r}, not a video and its class; {GET_IT_AGAIN}")
    return found[1], found[2]


def _is_label(text: str, known: dict[str, int]) -> bool:
    return text in known or re.fullmatch(r"-?\d+", text) is not None


def _first_label(path: Path, rows: Sequence[tuple[str, str, str]], known: dict[str, int], wanted: FirstLabel) -> int:
    if wanted != "auto":
        return wanted

    # A video in a folder `class/` tells by how much its number exceeds the position of the class.
    in_folders = [(PurePosixPath(name).parent.name, text) for _, name, text in rows if text not in known]
    offsets = {int(text) - known[folder] for folder, text in in_folders if folder in known}
    if offsets:
        if len(offsets) > 1 or not offsets <= {0, 1}:
            raise ValueError(f"{path}: its numbers contradict the folders of its videos; name another list of classes")
        return offsets.pop()

    # Otherwise a 0, or a number as large as the number of classes, decides.
    numbers = [int(text) for _, text in in_folders]
    if min(numbers) <= 0:
        return 0
    if max(numbers) >= len(known):
        return 1
    raise ValueError(
        f"{path}: its numbers, {min(numbers)} to {max(numbers)} of {len(known)} classes, may begin at 0 or at 1; say "
        "which: data.first_label"
    )
