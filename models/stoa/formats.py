"""Whose files start STOA-VLP's models: our own checkpoints, the published ones, and CLIP's."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from models.checkpoints import native
from models.checkpoints.stored import FittedPart, Stored, part_of
from models.parts.clip.names import is_clip, under_openai_names
from models.parts.time_table import stretch_times
from models.stoa.weights import PREFIX, UNUSED, own_name

PUBLISHED = "STOA-VLP's pytorch_model.bin.<step> or restore.bin, or CLIP ViT-B/16"
COPY = "copied from CLIP's towers, as pre-training starts"
SMALL_ENCODERS = {"object_fusion": 1, "object_act_fusion": 2}
"""How many of the video tower's last two blocks each starts from, in order."""
POSITIONS = "positional_embedding"
POSITIONS_OF_TEXTS = "positions_of_texts"
"""CLIP's positions, of which the fusion encoder's begin as a copy."""
TIMES = ("object_frame_pos_emb", "visual.object_encoder.box_categories")
"""Tables with a row for each frame."""


class Published:
    """STOA-VLP's published files."""

    @staticmethod
    def matches(names: Iterable[str]) -> bool:
        """Whether these are the names of such a file."""
        return f"{PREFIX}visual.conv1.weight" in {name.removeprefix("module.") for name in names}

    @staticmethod
    def read(tensors: Mapping[str, Tensor]) -> Stored:
        """The weights under our names; parts that the file lacks start from CLIP's towers. ValueError for other names.

        What the published model builds and never reads is left.
        """
        found: dict[str, Tensor] = {}
        unused, unknown = [], []
        for name, tensor in tensors.items():
            published = name.removeprefix("module.")
            own = own_name(published)
            if own is not None:
                found[own] = tensor.float()
            elif UNUSED.match(published):
                unused.append(published)
            else:
                unknown.append(published)
        if unknown:
            raise ValueError(f"has {len(unknown)} names that STOA-VLP does not, the first is {unknown[0]}")

        there = {part_of(name) for name in found}
        copies = {name: tensor for name, tensor in copies_of_towers(found).items() if part_of(name) not in there}
        left = {"the published model never reads it": unused} if unused else {}
        note = f"{', '.join(sorted({part_of(name) for name in copies}))}: {COPY}" if copies else ""
        return Stored("STOA-VLP", {**found, **copies}, left, rest_is_fresh=True, note=note)


class Clip:
    """CLIP, under OpenAI's, OpenCLIP's or transformers' names."""

    @staticmethod
    def matches(names: Iterable[str]) -> bool:
        """Whether these are the names of a CLIP with a ViT."""
        return is_clip(names)

    @staticmethod
    def read(tensors: Mapping[str, Tensor]) -> Stored:
        """Both towers under our names, and their copies; heads and embeddings of objects and actions stay fresh."""
        tensors = under_openai_names(tensors)
        found = {_tower_name(name): tensor.float() for name, tensor in tensors.items()}
        missing = {"visual", "text"} - {part_of(name) for name in found}
        if missing:
            raise ValueError(f"is a CLIP without its {min(missing)} tower; take a file with both")
        return Stored("CLIP", {**found, **copies_of_towers(found)}, rest_is_fresh=True, note=f"fusion, actions: {COPY}")


def copies_of_towers(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What starts the fusion, trajectory and action encoders: copies of CLIP's towers, which are under our names.

    The fusion encoder takes the text tower's blocks and positions, the two small encoders the video tower's last two
    blocks, `ln_post` and `proj`. A model takes what it has of them. What the towers lack is missed on loading.
    """
    copies: dict[str, Tensor] = {}
    projection, positions = found.get("text.text_projection"), found.get(f"text.{POSITIONS}")
    if projection is not None and positions is not None and projection.shape[0] == projection.shape[1]:
        copies |= _moved(found, "text.transformer.", "fusion.transformer.")
        copies[f"fusion.{POSITIONS_OF_TEXTS}"] = positions.clone()

    blocks = "visual.transformer.resblocks."
    depth = 1 + max((int(_after(blocks, name)) for name in found if name.startswith(blocks)), default=-1)
    for encoder, count in SMALL_ENCODERS.items():
        for name in ("visual.ln_post.", "visual.proj"):
            copies |= _moved(found, name, f"{encoder}.{name.removeprefix('visual.')}")
        for block in range(count):
            source = f"{blocks}{depth - 2 + block}."
            copies |= _moved(found, source, f"{encoder}.transformer.resblocks.{block}.")
    return copies


class StoaFormats:
    """The `models.checkpoints.load.WeightFormats` of STOA-VLP."""

    adapters: tuple[Any, ...] = (native, Published, Clip)
    known_files = "no checkpoint of this project, STOA-VLP or CLIP"
    found_in: Mapping[str, str] = {}
    otherwise_found_in = PUBLISHED

    def fit_part(self, part: str, found: dict[str, Tensor], own: dict[str, Tensor]) -> FittedPart:
        """The weights in the model's shapes; blocks and objects that the model is built without are left.

        The object encoder stays fresh where a file, such as CLIP's, has none. CLIP's positions are the beginning of the
        fusion encoder's. Tables over time are fitted to the model's number of frames.
        """
        fitted: dict[str, Tensor] = {}
        notes: list[str] = []
        left: list[str] = []
        for name, tensor in found.items():
            if name in own and f"{part}.{name}".rstrip(".") in TIMES:
                tensor = _fit_times(name or part, tensor, own[name], notes)
            if name in own and tensor.shape != own[name].shape and tensor.squeeze().shape == own[name].squeeze().shape:
                tensor = tensor.reshape(own[name].shape)
            if name in own:
                fitted[name] = tensor
            elif ".resblocks." in f".{name}" or name.startswith("object_encoder."):
                left.append(name)
            else:
                fitted[name] = tensor

        fresh = {name: tensor for name, tensor in own.items() if name.startswith("object_encoder.")}
        if fresh and not fresh.keys() & fitted.keys():
            fitted |= fresh
            notes.append("object_encoder is not in the file and keeps its fresh weights")
        if POSITIONS_OF_TEXTS in fitted:
            copied = fitted.pop(POSITIONS_OF_TEXTS)[: len(own[POSITIONS])]
            fitted[POSITIONS] = torch.cat([copied, own[POSITIONS][len(copied) :]])
            notes.append(f"the first {len(copied)} of {len(own[POSITIONS])} positions are those of CLIP's texts")
        return FittedPart(fitted, notes, {"this model has no such block": left} if left else {})


FORMATS = StoaFormats()


def _fit_times(name: str, table: Tensor, own: Tensor, notes: list[str]) -> Tensor:
    """The rows of the first frames, or each row for several neighbours; adds a note if the numbers differ."""
    before, after = len(table), len(own)
    if before == after or table.ndim != own.ndim or table.shape[1:] != own.shape[1:]:
        return table
    notes.append(
        f"{name} is of {before} frames, the model of {after}; the fusion encoder's positions stay in their rows"
    )
    if after < before:
        return table[:after].clone()
    return stretch_times(table.flatten(1)[None], after, "nearest")[0].reshape(own.shape).contiguous()


def _tower_name(name: str) -> str:
    return name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}"


def _moved(found: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    return {target + name.removeprefix(source): found[name].clone() for name in found if name.startswith(source)}


def _after(start: str, name: str) -> str:
    """The part of a dotted name that follows its beginning."""
    return name.removeprefix(start).partition(".")[0]
