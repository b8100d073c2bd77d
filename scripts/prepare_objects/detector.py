"""A detection model of torchvision on the frames that the loader samples from a video."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights

from datasets import decode, sampling
from datasets.objects.crop import Fit, into_frame
from datasets.objects.detections import ClipBoxes, Detection, choose_boxes
from scripts.parts.worker_pool import Beat

RANDOM, PUBLISHED = "random", "published"
COCO: Sequence[str] = FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["categories"]
NOT_CLASSES = ("__background__", "N/A")
FRAMES_AT_ONCE = 4


@dataclass(frozen=True)
class DetectorSettings:
    """Which detector runs, and on what.

    Attributes:
        model: a detection model's name in torchvision.
        weights: `published` (torchvision loads them), `random`, or a file of a state dict.
        min_confidence: boxes below it are left out.
    """

    model: str
    weights: str
    min_confidence: float
    num_frames: int
    per_frame: int
    image_size: int
    fit: Fit
    sampling: str


@dataclass(frozen=True)
class DetectionJob:
    """One clip: a file, or its part from `start` to `end` in seconds."""

    row: int
    file: str
    start: float | None
    end: float | None
    settings: DetectorSettings


def coco_classes() -> dict[str, int]:
    """COCO's class numbers by name, as torchvision's detectors give them."""
    return {name: number for number, name in enumerate(COCO) if name not in NOT_CLASSES}


@functools.lru_cache(maxsize=1)
def load_detector(name: str, weights: str, min_confidence: float) -> torch.nn.Module:
    """The detector in evaluation, once a process; ValueError if there is no such model or its file does not fit."""
    # In many processes each would take all cores.
    torch.set_num_threads(1)
    options = {"box_score_thresh": min_confidence} if "rcnn" in name else {"score_thresh": min_confidence}

    try:
        if weights == PUBLISHED:
            return get_model(name, weights=get_model_weights(name).DEFAULT, **options).eval()
        torch.manual_seed(0)
        state = None if weights == RANDOM else _read_weights(Path(weights))
        num_classes = len(COCO) if state is None else _num_classes(state, weights)
        model = get_model(name, weights=None, weights_backbone=None, num_classes=num_classes, **options)
        if state is not None:
            model.load_state_dict(state)
        return model.eval()
    except (RuntimeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise ValueError(f"--model {name} with --weights {weights}: {text}") from None


@torch.no_grad()
def detect(job: DetectionJob, beat: Beat) -> ClipBoxes:
    """The boxes of a clip on the frames that the loader samples from it, in their pixels."""
    settings = job.settings
    detector = load_detector(settings.model, settings.weights, settings.min_confidence)
    width, height = display_size(job.file)
    frames = read_frames(job, width, height)

    found: list[list[Detection]] = []
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        for prediction in detector(list(frames[first : first + FRAMES_AT_ONCE])):
            boxes, labels, scores = (prediction[key].tolist() for key in ("boxes", "labels", "scores"))
            detections = [
                Detection(label, tuple(box), score)
                for box, label, score in zip(boxes, labels, scores, strict=True)
                if label > 0 and score >= settings.min_confidence
            ]
            found.append(into_frame(detections, width, height, settings.image_size, settings.fit))
        beat()
    return choose_boxes(found, settings.per_frame)


def read_frames(job: DetectionJob, width: int, height: int) -> Tensor:
    """The sampled frames at the video's own size, (T, 3, H, W) from 0 to 1.

    They are read as the loader reads them, as squares, so that both take the same frames; the square is large enough
    to lose nothing.
    """
    settings = job.settings
    choose = sampling.chooser(settings.sampling, settings.num_frames, partial(np.random.default_rng, 0))
    side = max(width, height)
    squares = decode.read_video(job.file, side, choose, job.start, job.end)
    frames = squares.float() / 255
    return F.interpolate(frames, size=(height, width), mode="bilinear", antialias=True)


def display_size(file: str) -> tuple[int, int]:
    """Width and height of a video as it is shown, that is, after its rotation. DecodeError if there is no frame."""
    try:
        with av.open(file) as container:
            frame = next(container.decode(container.streams.video[0]))
    except (av.FFmpegError, OSError, ValueError, IndexError, StopIteration) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise decode.DecodeError(file, f"PyAV: {text}") from None
    is_upright = frame.rotation % 180 == 0
    return (frame.width, frame.height) if is_upright else (frame.height, frame.width)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise anything
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"is no file of plain tensors ({text})") from None
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("holds no state dict")
    return state


def _num_classes(state: dict[str, Tensor], weights: str) -> int:
    """Of a file's own classes, the background included."""
    rcnn = state.get("roi_heads.box_predictor.cls_score.bias")
    if rcnn is None:
        raise ValueError(f"{weights}: has no roi_heads.box_predictor.cls_score.bias; only R-CNN detectors take a file")
    return len(rcnn)
