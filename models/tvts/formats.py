"""Whose files start TVTSv2's models: our own, TVTSv2's published ones, and CLIP's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from configs.model import TimeTable
from models.checkpoints import native
from models.checkpoints.stored import OTHER_VOCABULARY, Stored
from models.parts.clip.files import describe, image_sizes_of
from models.parts.clip.image_tower import resize_positions
from models.parts.clip.names import IMAGE, is_clip, under_openai_names
from models.parts.time_table import stretch_times
from models.tvts import weights

PUBLISHED = "TVTSv2_ViT_B_32.pth, TVTSv2_ViT_B_16.pth or TVTSv2_ViT_H_14.pth"
VIDEO = "video_model"
PLACES, TIMES = "positional_embedding", "temporal_embedding"


@dataclass
class FittedTower:
    """Weights of a part, what was done to them, and names that it has no use for with the reason."""

    weights: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)


class Published:
    """TVTSv2's published files, and the reference's training checkpoints."""

    @staticmethod
    def matches(names: Iterable[str]) -> bool:
        """Whether these are the names of such a file."""
        return weights.matches(dict.fromkeys(names))

    @staticmethod
    def read(tensors: Mapping[str, Tensor]) -> Stored:
        """The weights under our names; without a sorting head, the model's stays fresh."""
        found = weights.from_published(tensors)
        video = {name.removeprefix(f"{VIDEO}."): tensor for name, tensor in found.items() if name.startswith(VIDEO)}
        return Stored(f"TVTSv2 on {_model_of(video)}", found, rest_is_fresh=True)


class Clip:
    """CLIP, under OpenAI's, OpenCLIP's or transformers' names."""

    @staticmethod
    def matches(names: Iterable[str]) -> bool:
        """Whether these are the names of a CLIP with a ViT."""
        return is_clip(names)

    @staticmethod
    def read(tensors: Mapping[str, Tensor]) -> Stored:
        """Both towers under our names; attention over time stays fresh."""
        tensors = under_openai_names(tensors)
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if name.startswith(IMAGE):
                found[f"{VIDEO}.{weights.clip_to_video(name.removeprefix(IMAGE))}"] = tensor.float()
            elif name != "logit_scale":
                found[f"text_model.{name}"] = tensor.float()
        left = {"contrast has its own temperature": ["logit_scale"]} if "logit_scale" in tensors else {}
        video = {name.removeprefix(f"{VIDEO}."): tensor for name, tensor in found.items() if name.startswith(VIDEO)}
        return Stored(f"CLIP {_model_of(video)}" if video else "CLIP", found, left, rest_is_fresh=True)


@dataclass(frozen=True)
class TvtsFormats:
    """The `models.checkpoints.load.WeightFormats` of TVTSv2.

    Attributes:
        time_table: how the temporal embedding is stretched to a model of more frames.
    """

    time_table: TimeTable = "nearest"

    adapters: ClassVar[tuple[Any, ...]] = (native, Published, Clip)
    known_files: ClassVar[str] = "no checkpoint of this project, TVTSv2 or CLIP"
    found_in: ClassVar[Mapping[str, str]] = {"text_model": f"{PUBLISHED}, or CLIP"}
    otherwise_found_in: ClassVar[str] = f"{PUBLISHED}, or CLIP"

    def stretching(self, time_table: TimeTable) -> "TvtsFormats":
        """The same formats, which stretch the temporal embedding in this way."""
        return replace(self, time_table=time_table)

    def fit_part(self, part: str, found: dict[str, Tensor], own: dict[str, Tensor]) -> FittedTower:
        """The weights of a part as a part with the state `own` can take them; names are those within the part.

        ValueError names both models where the file is of another than `own`.
        """
        fitted = FittedTower(dict(found))
        if part == VIDEO:
            _check_model(found, own)
            _fit_places(fitted, own)
            _fit_times(fitted, own, self.time_table)
            _fit_motion(fitted, found, own)
            _note_averaging(fitted)
        return fitted

    def remedy(self, name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        """What to do if the vocabularies differ."""
        differ = name.endswith("token_embedding.weight") and shape[0] != wanted[0]
        return OTHER_VOCABULARY if differ else ""


FORMATS = TvtsFormats()


def _check_model(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse a file of other sizes than frames and pixels."""
    sizes, wanted = (
        image_sizes_of({weights.video_to_clip(name): t for name, t in side.items()}) for side in (found, own)
    )
    if replace(sizes, image_size=wanted.image_size, heads=1) != replace(wanted, heads=1):
        raise ValueError(f"is of {describe(sizes)}, and `model` describes {describe(wanted)}")


def _model_of(video: Mapping[str, Tensor]) -> str:
    """Which model a video tower is of, by its sizes."""
    image = {weights.video_to_clip(name): tensor for name, tensor in video.items()}
    missing = {"proj", "conv1.weight", PLACES} - image.keys()
    if missing:
        raise ValueError(f"its image tower lacks {', '.join(sorted(missing))}; get the file again")
    return describe(image_sizes_of(image))


def _fit_places(fitted: FittedTower, own: Mapping[str, Tensor]) -> None:
    """Resize the embedding of places (nearest) to another grid."""
    found, wanted = fitted.weights.get(PLACES), len(own[PLACES])
    if found is None or len(found) == wanted:
        return
    before, after = (round((count - 1) ** 0.5) for count in (len(found), wanted))
    fitted.weights[PLACES] = resize_positions(found, (after, after), "nearest")
    fitted.notes.append(f"{PLACES} resized from {before} x {before} to {after} x {after} places")


def _fit_times(fitted: FittedTower, own: Mapping[str, Tensor], time_table: TimeTable) -> None:
    """Take the first places in time, or stretch them to more; for CLIP's weights time starts without effect."""
    found, wanted = fitted.weights.get(TIMES), len(own[TIMES])
    if found is None:
        fresh = {name: tensor for name, tensor in own.items() if weights.is_of_time(name)}
        fitted.weights |= fresh | {TIMES: torch.zeros_like(own[TIMES])}
        fitted.notes.append("attention over time is fresh and the temporal embedding 0, so it is CLIP frame by frame")
    elif wanted < len(found):
        fitted.weights[TIMES] = found[:wanted].clone()
        fitted.notes.append(f"{TIMES}: the first {wanted} of {len(found)} frames, which is what such clips use")
    elif wanted > len(found):
        fitted.weights[TIMES] = stretch_times(found[None], wanted, time_table)[0].contiguous()
        fitted.notes.append(f"{TIMES} resized from {len(found)} to {wanted} frames, {time_table}")


def _fit_motion(fitted: FittedTower, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Let the view of differences, which no published file has, start without effect."""
    if weights.MOTION in own and weights.MOTION not in found:
        fitted.weights[weights.MOTION] = torch.zeros_like(own[weights.MOTION])
        fitted.notes.append(f"{weights.MOTION} is 0: differences between frames have no effect at first")


def _note_averaging(fitted: FittedTower) -> None:
    """Say so if attention over time has no queries and keys, and never gets any: see `models.tvts.initialisation`."""
    projections = [tensor for name, tensor in fitted.weights.items() if weights.is_in_time(name)]
    queries_and_keys = [tensor[: len(tensor) * 2 // 3] for tensor in projections]
    if queries_and_keys and not any(tensor.any() for tensor in queries_and_keys):
        fitted.notes.append(
            "queries and keys of attention over time are 0, and stay 0 in training: it averages the frames, and "
            "reducers that compare frames find them all alike (fresh models learn them with model.time_init=zero_proj)"
        )
