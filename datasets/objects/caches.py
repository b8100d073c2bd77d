"""STOA-VLP's own caches, `object_attr_*.pth`: a dict from video ids to boxes, classes and confidence sums."""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.objects.detections import NO_BOX, ClipBoxes

# The functions that numpy's pickles name: they make arrays and numbers from bytes, in its old and new modules.
_make_array, _make_number = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
ALLOWED: list[Any] = [
    OrderedDict,
    defaultdict,
    np.ndarray,
    np.dtype,
    *((_make_array, f"numpy.{module}.multiarray._reconstruct") for module in ("core", "_core")),
    *((_make_number, f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")),
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64")),
]
"""What a cache may contain besides plain data and tensors; none of it runs code from the file."""


def read_cache(path: Path, num_frames: int, per_frame: int) -> dict[str, ClipBoxes]:
    """Read the boxes of every video in a cache, by id, in pixels of its 224 x 224 frames.

    No code in the file is run. ValueError, naming file and entry, if the form, or the number of frames or boxes,
    differs.
    """
    try:
        with torch.serialization.safe_globals(ALLOWED):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise anything
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is no cache of plain data and tensors; nothing of it was run ({text})") from None
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: holds no dict from video ids to boxes")
    return {str(name): _clip(entry, f"{path}: {name}", num_frames, per_frame) for name, entry in content.items()}


def _clip(entry: Any, place: str, num_frames: int, per_frame: int) -> ClipBoxes:
    if not isinstance(entry, Mapping) or not {"objects", "obj_cls", "conf_set"} <= entry.keys():
        found = ", ".join(map(str, entry)) if isinstance(entry, Mapping) else type(entry).__name__
        raise ValueError(f"{place}: holds {found}; objects, obj_cls and conf_set are needed")
    boxes = _array(entry["objects"], np.float32, f"{place}: objects")
    classes = _array(entry["obj_cls"], np.int64, f"{place}: obj_cls")
    if boxes.shape != (num_frames, per_frame, 4) or classes.shape != (num_frames, per_frame):
        wanted = (num_frames, per_frame)
        raise ValueError(
            f"{place}: boxes of shape {boxes.shape} and classes of shape {classes.shape}; {(*wanted, 4)} and {wanted} "
            "are needed, or set --num-frames and --per-frame"
        )
    if not isinstance(entry["conf_set"], Mapping):
        raise ValueError(f"{place}: conf_set is no dict from classes to confidences")

    # Like the published loader, take the first classes of the dict.
    ids = np.zeros(2 * per_frame, np.int64)
    followed = [int(label) for label in entry["conf_set"]][: 2 * per_frame]
    ids[: len(followed)] = followed

    is_box = boxes[..., 0] != NO_BOX
    if bool((is_box != (classes > 0)).any()):
        raise ValueError(f"{place}: boxes and classes disagree on which are padding")
    return ClipBoxes(boxes, classes, ids)


def _array(value: Any, dtype: type, place: str) -> NDArray:
    try:
        return np.asarray(value.numpy() if isinstance(value, torch.Tensor) else value, dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: is no array of numbers ({error})") from None
