"""Boxes that others found: VinVL's JSON files, and the caches of STOA-VLP's code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.files_below import files_below
from datasets.objects.caches import read_cache
from datasets.objects.crop import Fit, into_frame
from datasets.objects.detections import ClipBoxes, Detection, choose_boxes
from datasets.objects.vinvl import BoxOrder, RawObject, detections, find_order, read_file
from scripts.parts.worker_pool import Beat
from scripts.prepare_objects.detector import display_size

Coordinates = Literal["frame", "video"]
FILES_LOOKED_AT = 500
"""So many files decide the order of numbers in a box; each other file is checked against it when it is read."""


@dataclass(frozen=True)
class VinvlSettings:
    """How files are read.

    Attributes:
        coordinates: whether boxes are in pixels of the square `frame` that the model sees, or of the `video`.
    """

    labels: Mapping[str, int]
    order: BoxOrder
    coordinates: Coordinates
    skip_unknown: bool
    num_frames: int
    per_frame: int
    image_size: int
    fit: Fit


@dataclass(frozen=True)
class VinvlJob:
    """One file, and the video it is of where that is needed."""

    row: int
    path: Path
    video: str | None
    settings: VinvlSettings


def json_files(folder: Path) -> list[Path]:
    """The JSON files below a folder, sorted. ValueError if there are none, or two of one name."""
    paths = [Path(path) for path in sorted(files_below(folder)) if path.endswith(".json")]
    if not paths:
        raise ValueError(f"{folder}: no .json file in it; one a video is needed")
    by_stem: dict[str, Path] = {}
    for path in paths:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(f"{path}: has the name of {other}; a video has one file")
    return paths


def box_order(paths: Sequence[Path], given: BoxOrder | None) -> BoxOrder:
    """The order of a box's numbers: the one given, or the only one that the first files fit."""
    return given or find_order(paths[:FILES_LOOKED_AT])


def convert(job: VinvlJob, beat: Beat) -> ClipBoxes:
    """The boxes of one file on the frames that the model sees; ValueError names the file and the entry."""
    settings = job.settings
    frames = read_file(job.path)
    if len(frames) != settings.num_frames:
        raise ValueError(
            f"{job.path}: has {len(frames)} frames, and clips have {settings.num_frames}; detect again on the frames "
            f"that are sampled, or set --num-frames {len(frames)}"
        )

    found = detections(frames, settings.labels, settings.order, skip_unknown=settings.skip_unknown)
    if settings.coordinates == "video":
        assert job.video is not None
        width, height = display_size(job.video)
        _check_inside(frames, settings.order, width, height, f"its video {job.video}, {width} x {height}")
        found = [into_frame(frame, width, height, settings.image_size, settings.fit) for frame in found]
    else:
        side = settings.image_size
        where = f"a frame of {side} x {side} (--coordinates video is for boxes in the video's own pixels)"
        _check_inside(frames, settings.order, side, side, where)
        found = [_clipped(frame, side) for frame in found]

    return choose_boxes(found, settings.per_frame)


def convert_caches(paths: Sequence[Path], num_frames: int, per_frame: int) -> dict[str, ClipBoxes]:
    """The boxes of all videos in some caches. ValueError for a video in two of them with different boxes."""
    found: dict[str, ClipBoxes] = {}
    for path in paths:
        for name, boxes in read_cache(path, num_frames, per_frame).items():
            other = found.setdefault(name, boxes)
            if any((first != second).any() for first, second in zip(other, boxes, strict=True)):
                raise ValueError(f"{path}: {name} has other boxes than in a file before it")
    return found


def _clipped(frame: Sequence[Detection], side: int) -> list[Detection]:
    """The same boxes without the pixel or less by which they may leave the frame."""
    return [
        Detection(label, (max(x1, 0.0), max(y1, 0.0), min(x2, float(side)), min(y2, float(side))), confidence)
        for label, (x1, y1, x2, y2), confidence in frame
    ]


def _check_inside(frames: Sequence[Sequence[RawObject]], order: BoxOrder, width: int, height: int, where: str) -> None:
    """Refuse boxes that leave the picture by more than rounding does: they are of another one."""
    for frame in frames:
        for entry in frame:
            xs, ys = (entry.rect[0::2], entry.rect[1::2]) if order == "xyxy" else (entry.rect[:2], entry.rect[2:])
            if min(*xs, *ys) < -1 or max(xs) > width + 1 or max(ys) > height + 1:
                raise ValueError(f"{entry.place}: rect {list(entry.rect)} ({order}) does not lie in {where}")
