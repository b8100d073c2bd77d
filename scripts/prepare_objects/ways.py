"""The three sources of boxes, a detector, VinVL's files and STOA-VLP's caches, and how each is read."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.annotations import manifest
from datasets.annotations.layout import VIDEO_SUFFIXES
from datasets.files_below import files_below
from datasets.objects.crop import Fit
from datasets.objects.detections import ClipBoxes
from datasets.objects.store import ObjectSettings, clip_name
from datasets.objects.vinvl import BoxOrder, read_label_map
from scripts.parts.worker_pool import Failure, run_each
from scripts.prepare_objects.detector import DetectionJob, DetectorSettings, coco_classes, detect, load_detector
from scripts.prepare_objects.files import (
    Coordinates,
    VinvlJob,
    VinvlSettings,
    box_order,
    convert,
    convert_caches,
    json_files,
)

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


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every way is asked for: which frames the boxes are on, and how the work is shared out.

    Attributes:
        label_map: a file of class names, where the way takes one.
        num_frames, per_frame: frames of a clip, and the most boxes on each.
        workers, timeout: processes, and the seconds without progress after which a clip is given up.
    """

    label_map: Path | None
    num_frames: int
    per_frame: int
    image_size: int
    fit: Fit
    sampling: str
    workers: int
    timeout: float


@dataclass(frozen=True, kw_only=True)
class DetectorRequest(Request):
    """Run a detector of torchvision on the clips of `manifest`, or on all videos of the folder `videos`."""

    videos: Path
    manifest: Path | None
    model: str
    weights: str
    min_confidence: float


@dataclass(frozen=True, kw_only=True)
class VinvlRequest(Request):
    """Read VinVL's files; boxes in the video's own `coordinates` need the folder `videos`."""

    label_map: Path
    detections: Path
    box_order: BoxOrder | None
    coordinates: Coordinates
    videos: Path | None
    skip_unknown_classes: bool


@dataclass(frozen=True, kw_only=True)
class CachesRequest(Request):
    """Read the caches of STOA-VLP's code."""

    files: tuple[Path, ...]


def way_of(request: Request) -> Way:
    """The way that is asked for. ValueError if what it names is not there, or has another form."""
    match request:
        case DetectorRequest():
            return _by_detector(request)
        case VinvlRequest():
            return _by_vinvl(request)
        case CachesRequest():
            return _by_caches(request)
    raise AssertionError(f"no way to do {type(request).__name__}")


def _by_detector(request: DetectorRequest) -> Way:
    settings = DetectorSettings(
        model=request.model,
        weights=request.weights,
        min_confidence=request.min_confidence,
        num_frames=request.num_frames,
        per_frame=request.per_frame,
        image_size=request.image_size,
        fit=request.fit,
        sampling=request.sampling,
    )
    # A mistake in the model's name or weights ends the command here, instead of failing every clip.
    load_detector(settings.model, settings.weights, settings.min_confidence)

    clips = _clips(request.videos, request.manifest)
    jobs = [DetectionJob(row, file, start, end, settings) for row, (_, file, start, end) in enumerate(clips)]
    names = [clip_name(name, start, end) for name, _, start, end in clips]

    classes = coco_classes() if request.label_map is None else read_label_map(request.label_map)
    source = f"{request.model} of torchvision, weights {request.weights}, from {request.min_confidence:g}"
    return Way(names, _settings(request, source, classes), lambda rows: _run(detect, jobs, rows, request), jobs)


def _by_vinvl(request: VinvlRequest) -> Way:
    paths = json_files(request.detections)
    settings = VinvlSettings(
        labels=read_label_map(request.label_map),
        order=box_order(paths, request.box_order),
        coordinates=request.coordinates,
        skip_unknown=request.skip_unknown_classes,
        num_frames=request.num_frames,
        per_frame=request.per_frame,
        image_size=request.image_size,
        fit=request.fit,
    )

    # Boxes in a video's own pixels are scaled by its size, so each file needs its video.
    videos: dict[str, str] = {}
    if request.coordinates == "video":
        if request.videos is None:
            raise ValueError("--coordinates video: needs --videos, whose sizes the boxes are measured in")
        videos = {Path(file).stem: file for _, file, _, _ in _clips(request.videos, None)}
        missing = next((path for path in paths if video_of(path) not in videos), None)
        if missing is not None:
            raise ValueError(f"{missing}: {request.videos} has no video of this name")

    jobs = [VinvlJob(row, path, videos.get(video_of(path)), settings) for row, path in enumerate(paths)]
    made_of = _settings(request, f"VinVL's files, rect as {settings.order}", settings.labels)
    return Way([video_of(path) for path in paths], made_of, lambda rows: _run(convert, jobs, rows, request))


def video_of(path: Path) -> str:
    """The name of a file's video. DiDeMo's files, of seconds 0 to 31, are called `NAME_[0]_[31].json`."""
    return re.sub(r"_\[\d+\]_\[\d+\]$", "", path.stem)


def _by_caches(request: CachesRequest) -> Way:
    found = convert_caches(request.files, request.num_frames, request.per_frame)
    names = list(found)
    classes = {} if request.label_map is None else read_label_map(request.label_map)
    made_of = _settings(request, "caches of STOA-VLP's code", classes)
    return Way(names, made_of, lambda rows: ((row, found[names[row]]) for row in rows))


def _settings(request: Request, source: str, classes: Any) -> ObjectSettings:
    return ObjectSettings(
        num_frames=request.num_frames,
        objects_per_frame=request.per_frame,
        image_size=request.image_size,
        fit=request.fit,
        sampling=request.sampling,
        source=source,
        classes=classes,
    )


def _run(function: Callable[..., ClipBoxes], jobs: Sequence[Any], rows: Sequence[int], request: Request) -> Results:
    results = run_each(function, [jobs[row] for row in rows], request.workers, request.timeout)
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
