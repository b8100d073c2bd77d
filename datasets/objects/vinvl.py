"""VinVL's detections, one JSON file per video: a list over frames of `{"objects": [{"class", "rect", "conf"}, ...]}`.

Two forms of `rect` exist: [x1, y1, x2, y2], which STOA-VLP's code reads, and [x1, x2, y1, y2], which its README
describes. A file rarely fits both, because each form requires x1 < x2 and y1 < y2.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from datasets.objects.detections import Detection

BoxOrder = Literal["xyxy", "xxyy"]
ORDERS: dict[BoxOrder, tuple[int, int, int, int]] = {"xyxy": (0, 1, 2, 3), "xxyy": (0, 2, 1, 3)}
"""The positions of x1, y1, x2 and y2 in a `rect`, for each order."""


class RawObject(NamedTuple):
    """One entry of a file, with its numbers unchanged; `place` names it in errors."""

    name: str
    rect: tuple[float, float, float, float]
    confidence: float
    place: str


def read_label_map(path: Path) -> dict[str, int]:
    """Class numbers by name, of a `label_map.json` (its `label_to_idx`) or a plain JSON object of names and numbers."""
    content = _json(path)
    labels = content.get("label_to_idx", content) if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f"{path}: holds neither `label_to_idx` nor an object of class names and their numbers")
    wrong = next((name for name, number in labels.items() if not _is_class_number(number)), None)
    if wrong is not None:
        raise ValueError(f"{path}: class {wrong!r} has number {labels[wrong]!r}; whole numbers from 1 are needed")
    return labels


def read_file(path: Path) -> list[list[RawObject]]:
    """All entries of a file, frame by frame; ValueError, naming file and entry, if the form differs."""
    content = _json(path)
    if not isinstance(content, list):
        raise ValueError(f"{path}: is not a list over frames, but {_kind(content)}")
    return [_frame(entry, f"{path}: frame {number}") for number, entry in enumerate(content)]


def box_orders(frames: Iterable[Iterable[RawObject]]) -> set[BoxOrder]:
    """The orders in which every box of a file has x1 < x2 and y1 < y2: one, both or none."""
    fitting: set[BoxOrder] = set(ORDERS)
    for frame in frames:
        for entry in frame:
            fitting = {order for order in fitting if _rises(entry.rect, order)}
    return fitting


def find_order(paths: Iterable[Path]) -> BoxOrder:
    """The one order in which all of these files can be read.

    ValueError if files contradict each other, naming the first that does, or if all fit both orders.
    """
    fitting: set[BoxOrder] = set(ORDERS)
    decided_by: Path | None = None
    for path in paths:
        orders = box_orders(read_file(path))
        if not orders & fitting:
            why = f"{decided_by} needs {' or '.join(fitting)}" if orders else "some box rises in neither x nor y"
            raise ValueError(f"{path}: its boxes are in neither order that was possible so far ({why}); look at them")

        if orders & fitting != fitting:
            decided_by = path
        fitting &= orders
    if len(fitting) > 1:
        raise ValueError(
            "the boxes can be read as [x1, y1, x2, y2] and as [x1, x2, y1, y2]; say which with --box-order xyxy or xxyy"
        )
    return fitting.pop()


def detections(
    frames: Iterable[Iterable[RawObject]],
    labels: Mapping[str, int],
    order: BoxOrder,
    *,
    skip_unknown: bool = False,
) -> list[list[Detection]]:
    """Boxes with class numbers. ValueError for a box in another order and, unless skipped, for an unknown class."""
    found: list[list[Detection]] = []
    for frame in frames:
        found.append([])
        for entry in frame:
            if not _rises(entry.rect, order):
                raise ValueError(f"{entry.place}: rect {list(entry.rect)} is not in order {order}, as others are")

            label = labels.get(entry.name)
            if label is not None:
                x1, y1, x2, y2 = (entry.rect[place] for place in ORDERS[order])
                found[-1].append(Detection(label, (x1, y1, x2, y2), entry.confidence))
            elif not skip_unknown:
                raise ValueError(
                    f"{entry.place}: class {entry.name!r} is not in the label map; give the detector's own with "
                    "--label-map, or leave such boxes out with --skip-unknown-classes"
                )
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())})") from None


def _frame(entry: Any, place: str) -> list[RawObject]:
    objects = entry.get("objects") if isinstance(entry, dict) else None
    if not isinstance(objects, list):
        raise ValueError(f'{place}: has no list "objects"')
    return [_object(found, f"{place}, object {number}") for number, found in enumerate(objects)]


def _object(entry: Any, place: str) -> RawObject:
    if not isinstance(entry, dict):
        raise ValueError(f'{place}: is {_kind(entry)}, not an object with "class", "rect" and "conf"')
    name, rect, confidence = entry.get("class"), entry.get("rect"), entry.get("conf")
    if not isinstance(name, str):
        raise ValueError(f'{place}: "class" is {name!r}, not a name')
    if not isinstance(rect, list) or len(rect) != 4 or not all(map(_is_number, rect)):
        raise ValueError(f'{place}: "rect" is {rect!r}, not four numbers')
    if confidence is None or not _is_number(confidence):
        raise ValueError(f'{place}: "conf" is {confidence!r}, not a number')
    first, second, third, fourth = map(float, rect)
    return RawObject(name, (first, second, third, fourth), float(confidence), place)


def _rises(rect: tuple[float, ...], order: BoxOrder) -> bool:
    x1, y1, x2, y2 = (rect[place] for place in ORDERS[order])
    return x1 < x2 and y1 < y2


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_class_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")
