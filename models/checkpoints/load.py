"""Start a model, and its momentum twin, from a file of weights of any known kind.

A model takes every part that it has itself, and each of them whole. The report lists what else is in the file. Each
system defines which files it reads and how it fits a part to the model: `WeightFormats`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from configs.model import TimeTable, VideoConfig
from models.checkpoints.stored import TWIN_SUFFIX, FittedPart, Stored, grouped, part_of, parts_of
from models.parts.momentum import MomentumTwin
from models.protocols import Twinnable

LISTED = 20
TWIN_IS_COPY = "the momentum twin is a copy of the model"


class WeightFormats(Protocol):
    """What a system knows about the files that its models start from.

    Attributes:
        adapters: modules with `matches(names)` and `read(tensors) -> Stored`, asked in this order.
        known_files: "no ...", for the error about a file that no adapter knows.
        found_in, otherwise_found_in: the files that have a missing part, by part, and for all other parts.
    """

    @property
    def adapters(self) -> tuple[Any, ...]: ...  # noqa: D102

    @property
    def known_files(self) -> str: ...  # noqa: D102

    @property
    def found_in(self) -> Mapping[str, str]: ...  # noqa: D102

    @property
    def otherwise_found_in(self) -> str: ...  # noqa: D102

    def fit_part(self, part: str, found: dict[str, Tensor], own: dict[str, Tensor]) -> FittedPart:
        """The weights of a part as a part with the state `own` can take them; names are those within the part.

        ValueError if the system can say why the file is of another model; tensors that do not fit are listed later.
        """
        ...


@runtime_checkable
class KnowsRemedies(Protocol):
    """Formats of a system that can say what to do about a tensor of another shape."""

    def remedy(self, name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        """What to do about the tensor `name` of a file, whose shape is not the `wanted` one; empty if it cannot say."""
        ...


@runtime_checkable
class StretchesTime(Protocol):
    """Formats of a system whose models have a table of time positions."""

    def stretching(self, time_table: TimeTable) -> WeightFormats:
        """The same formats, which fit that table to a model of more frames in this way."""
        ...


def formats_for(formats: WeightFormats, video: VideoConfig) -> WeightFormats:
    """A system's formats, as the `video` section of the model to start wants them."""
    return formats.stretching(video.time_table) if isinstance(formats, StretchesTime) else formats


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from a file.

    Attributes:
        source, kind: the file, and its kind in words.
        taken: how many tensors each part of the model or twin took.
        notes: what was resized, copied or left fresh.
        left: the names that were not taken, by reason.
    """

    source: str
    kind: str
    taken: dict[str, int]
    notes: list[str]
    left: dict[str, list[str]]

    def lines(self) -> list[str]:
        """The lines to log."""
        taken = ", ".join(f"{part} ({count})" for part, count in self.taken.items())
        return [
            f"weights from {self.source} ({self.kind}): {taken}",
            *(f"weights: {note}" for note in self.notes),
            *(f"weights not taken: {', '.join(grouped(names))}: {reason}" for reason, names in self.left.items()),
        ]


def load_into(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    formats: WeightFormats,
    twin: MomentumTwin | None = None,
) -> LoadReport:
    """Load a file into `model` and `twin`. If the file has no twin, the twin starts as a copy of the model.

    Args:
        tensors: as `engine.checkpoint_folder.read_weights` returns them.
        source: the file's name in the report and in errors.

    Raises:
        ValueError: the file is of no known kind or lacks a part of the model, or such a part has a tensor that is
            missing, unexpected or of another shape. The message lists all of them, and nothing is loaded.
    """
    fitted, report = fit(model, tensors, source, formats=formats, twin=twin)
    _load(model, fitted)
    if twin is not None and TWIN_IS_COPY in report.notes:
        twin.copy_from(cast(Twinnable, model))
    elif twin is not None:
        _load(twin, fitted)
    return report


def fit(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    formats: WeightFormats,
    twin: MomentumTwin | None = None,
) -> tuple[dict[str, Tensor], LoadReport]:
    """What `load_into` would load, under the names of model and twin, which may be on the meta device."""
    stored = read_stored(tensors, source, formats)
    parts = _PartFitter(stored, formats)
    try:
        parts.fit_all(model.state_dict())
        # A file without any part of the twin is no error: the twin then starts as a copy of the model.
        twin_state = {} if twin is None else twin.state_dict()
        if parts_of(twin_state) & parts_of(stored.weights):
            parts.fit_all(twin_state)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    parts.refuse_if_wrong(source)

    # Ties are settled after all parts are known, since they cross the border between parts.
    notes = [*parts.notes, *_settle_ties(model, parts.fitted)]
    if twin is not None and not parts.fitted.keys() >= twin_state.keys():
        notes.append(TWIN_IS_COPY)
    if stored.note:
        notes.append(stored.note)

    # Report the parts that only the file has.
    left = {**stored.left, **parts.left}
    only_in_file = [part_of(name) for name in stored.weights if part_of(name) not in parts.taken]
    if only_in_file:
        left["this task has no such part"] = only_in_file
    return parts.fitted, LoadReport(source, stored.kind, parts.taken, notes, left)


def read_stored(tensors: Mapping[str, Tensor], source: str, formats: WeightFormats) -> Stored:
    """Read a file with the adapter for its kind; `ValueError` if there is none."""
    adapter = next((adapter for adapter in formats.adapters if adapter.matches(tensors)), None)
    if adapter is None:
        some = ", ".join(list(tensors)[:3]) or "nothing"
        raise ValueError(f"{source}: is {formats.known_files}; it holds {some}")
    try:
        return adapter.read(tensors)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


class _PartFitter:
    """Collects, part by part, the weights for a model and the errors in them."""

    def __init__(self, stored: Stored, formats: WeightFormats) -> None:
        self.stored, self.formats = stored, formats
        self.fitted: dict[str, Tensor] = {}
        self.taken: dict[str, int] = {}
        self.notes: list[str] = []
        self.left: dict[str, list[str]] = {}
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def fit_all(self, state: Mapping[str, Tensor]) -> None:
        """Find weights for every part of a model's state."""
        for part in dict.fromkeys(map(part_of, state)):
            own = _tensors_of(part, state)
            found = _tensors_of(part, self.stored.weights)
            if found:
                self._fit_part(part, found, own)
            else:
                self._note_missing(part)

    def _note_missing(self, part: str) -> None:
        """A part that the file lacks stays fresh if such files hold an encoder alone, and is an error otherwise."""
        if self.stored.rest_is_fresh:
            self.notes.append(f"{part} is not in the file and keeps its fresh weights")
            return
        name = part.removesuffix(TWIN_SUFFIX)
        remedy = self.formats.found_in.get(name, self.formats.otherwise_found_in)
        self.missing.append(f"{part}: missing as a whole ({self.stored.kind}); start from {remedy}")

    def _fit_part(self, part: str, found: dict[str, Tensor], own: dict[str, Tensor]) -> None:
        """Have the system fit the weights of a part; errors are collected, so that the user sees all of them."""
        fitted = self.formats.fit_part(part.removesuffix(TWIN_SUFFIX), _within(part, found), _within(part, own))
        weights = {f"{part}.{name}" if name else part: tensor for name, tensor in fitted.weights.items()}
        self._compare(weights, own)
        self.fitted |= weights

        self.taken[part] = len(found)
        self.notes += [f"{part}: {note}" for note in fitted.notes]
        for reason, names in fitted.left.items():
            self.left.setdefault(reason, []).extend(f"{part}.{name}" for name in names)
            self.taken[part] -= len(names)

    def _compare(self, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
        """Note the tensors of a part that are missing, of another shape, or unexpected."""
        for name, tensor in own.items():
            if name not in weights:
                self.wrong.append(f"{name}: missing")
                continue

            shape, wanted = tuple(weights[name].shape), tuple(tensor.shape)
            if shape != wanted:
                remedy = self.formats.remedy(name, shape, wanted) if isinstance(self.formats, KnowsRemedies) else ""
                what_to_do = f"; {remedy}" if remedy else ""
                self.wrong.append(f"{name}: has shape {shape}, the model's is {wanted}{what_to_do}")
        self.wrong += [f"{name}: unexpected" for name in weights if name not in own]

    def refuse_if_wrong(self, source: str) -> None:
        lines = [*self.missing, *self.wrong]
        if lines:
            more = f"\n  and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
            listed = "\n  ".join(lines[:LISTED])
            raise ValueError(f"{source}: is of another model than `model` describes:\n  {listed}{more}")


def _tensors_of(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if part_of(name) == part}


def _within(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(part).removeprefix("."): tensor for name, tensor in tensors.items()}


def _settle_ties(model: nn.Module, fitted: dict[str, Tensor]) -> list[str]:
    """Give all names of a tied tensor the value of the last, the decoder's; changes `fitted`.

    The reference ties the text encoder to the decoder in pre-training in the same way. Returns a note on what changed.
    """
    # Group the names by the parameter they stand for.
    names_of_parameter: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names_of_parameter.setdefault(id(parameter), []).append(name)

    changed = []
    for *others, last in names_of_parameter.values():
        if last not in fitted:
            continue
        for name in others:
            if not torch.equal(fitted[name], fitted[last]):
                changed.append(name)
            fitted[name] = fitted[last]

    if not changed:
        return []
    listed = ", ".join(grouped(changed))
    return [f"tied to the decoder's here, and other in the file; the decoder's are taken: {listed}"]


def _load(module: nn.Module, fitted: Mapping[str, Tensor]) -> None:
    state: Iterable[str] = module.state_dict()
    module.load_state_dict({name: fitted[name] for name in state if name in fitted}, strict=False)
