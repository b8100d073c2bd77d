"""The three ways to come by boxes: what each is made of, and how its clips are done."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.annotations import manifest
from datasets.annotations.layout import VIDEO_SUFFIXES
from datasets.files_below import files_below
from datasets.objects.detections import ClipBoxes
from datasets.objects.store import ObjectSettings
from datasets.objects.vinvl import read_label_map
from scripts.parts.worker_pool import Failure, run_each
from scripts.prepare_objects.detector import DetectionJob, DetectorSettings, coco_classes, detect, load_detector
from scripts.prepare_objects.files import VinvlJob, VinvlSettings, box_order, convert, convert_caches, json_files

Results = Iterator[tuple[int, ClipBoxes | Failure]]


@dataclass(frozen=True)
class Way:
    """The clips of a data set in order, and the boxes of those rows that are asked for.

    Attributes:
        jobs: one a clip where videos are read, to draw pictures of; else empty.
    """

    names: list[str]
    settings: ObjectSettings
    compute: Callable[[Sequence[int]], Results]
    jobs: Sequence[DetectionJob] = ()


def way_of(arguments: argparse.Namespace) -> Way:
    """The way that a command names. ValueError if what it names is not there, or is of another form."""
    return {"detect": _by_detector, "vinvl": _by_vinvl, "caches": _by_caches}[arguments.way](arguments)


def clip_name(video: str, start: float | None, end: float | None) -> str:
    """What the store calls a video, or its part."""
    return video if start is None and end is None else f"{video}[{start or 0:g},{'' if end is None else f'{end:g}'}]"


def _by_detector(arguments: argparse.Namespace) -> Way:
    settings = DetectorSettings(
        model=arguments.model,
        weights=arguments.weights,
        min_confidence=arguments.min_confidence,
        num_frames=arguments.num_frames,
        per_frame=arguments.per_frame,
        image_size=arguments.image_size,
        fit=arguments.fit,
        sampling=arguments.sampling,
    )
    # What is wrong with the model ends the command, not every clip.
    load_detector(settings.model, settings.weights, settings.min_confidence)
    clips = _clips(arguments.videos, arguments.manifest)
    jobs = [DetectionJob(row, file, start, end, settings) for row, (_, file, start, end) in enumerate(clips)]
    names = [clip_name(name, start, end) for name, _, start, end in clips]
    classes = coco_classes() if arguments.label_map is None else read_label_map(arguments.label_map)
    source = f"{arguments.model} of torchvision, weights {arguments.weights}, from {arguments.min_confidence:g}"
    return Way(names, _settings(arguments, source, classes), lambda rows: _run(detect, jobs, rows, arguments), jobs)


def _by_vinvl(arguments: argparse.Namespace) -> Way:
    paths = json_files(arguments.detections)
    settings = VinvlSettings(
        labels=read_label_map(arguments.label_map),
        order=box_order(paths, arguments.box_order),
        coordinates=arguments.coordinates,
        skip_unknown=arguments.skip_unknown_classes,
        num_frames=arguments.num_frames,
        per_frame=arguments.per_frame,
        image_size=arguments.image_size,
        fit=arguments.fit,
    )
    videos: dict[str, str] = {}
    if arguments.coordinates == "video":
        if arguments.videos is None:
            raise ValueError("--coordinates video: needs --videos, whose sizes the boxes are measured in")
        videos = {Path(file).stem: file for _, file, _, _ in _clips(arguments.videos, None)}
        missing = next((path for path in paths if path.stem not in videos), None)
        if missing is not None:
            raise ValueError(f"{missing}: {arguments.videos} has no video of this name")
    jobs = [VinvlJob(row, path, videos.get(path.stem), settings) for row, path in enumerate(paths)]
    made_of = _settings(arguments, f"VinVL's files, rect as {settings.order}", settings.labels)
    return Way([path.stem for path in paths], made_of, lambda rows: _run(convert, jobs, rows, arguments))


def _by_caches(arguments: argparse.Namespace) -> Way:
    found = convert_caches(arguments.files, arguments.num_frames, arguments.per_frame)
    names = list(found)
    classes = {} if arguments.label_map is None else read_label_map(arguments.label_map)
    made_of = _settings(arguments, "caches of STOA-VLP's code", classes)
    return Way(names, made_of, lambda rows: ((row, found[names[row]]) for row in rows))


def _settings(arguments: argparse.Namespace, source: str, classes: Any) -> ObjectSettings:
    return ObjectSettings(
        num_frames=arguments.num_frames,
        objects_per_frame=arguments.per_frame,
        image_size=arguments.image_size,
        fit=arguments.fit,
        sampling=arguments.sampling,
        source=source,
        classes=classes,
    )


def _run(function: Callable[..., ClipBoxes], jobs: Sequence[Any], rows: Sequence[int], arguments: Any) -> Results:
    results = run_each(function, [jobs[row] for row in rows], arguments.jobs, arguments.timeout)
    with closing(results):
        for job, found in results:
            yield job.row, found


def _clips(videos: Path, listed: Path | None) -> list[tuple[str, str, float | None, float | None]]:
    """Name, file, start and end of every clip: of a manifest, or of all videos of a folder."""
    if not videos.is_dir():
        raise ValueError(f"{videos}: no such folder; name the one that holds the videos")
    if listed is not None:
        records = manifest.read(listed, videos)
        return [(str(_relative(record.video, videos)), record.video, record.start, record.end) for record in records]
    files = [file for file in sorted(files_below(videos)) if file.lower().endswith(tuple(VIDEO_SUFFIXES))]
    if not files:
        raise ValueError(f"{videos}: no video in it; known suffixes are {', '.join(VIDEO_SUFFIXES)}")
    return [(str(_relative(file, videos)), file, None, None) for file in files]


def _relative(file: str, videos: Path) -> Path:
    path = Path(file)
    return path.relative_to(videos) if path.is_relative_to(videos) else path
