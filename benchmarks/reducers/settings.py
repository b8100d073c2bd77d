"""What a comparison of reducers is made of: data, recipes, the reducers and their common cost, from one YAML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from configs.load import load
from configs.models.testa import as_testa
from configs.schema import (
    AggregationConfig,
    PretrainConfig,
    RetrievalConfig,
    RunConfig,
    TestaConfig,
    VideoConfig,
    VqaConfig,
)
from datasets.stories.story_set import StorySet

Task = Literal["retrieval", "vqa"]
Stage = Literal["off_the_shelf", "fine_tuned"]
Attention = Literal["divided", "joint"]
TASKS: tuple[Task, ...] = get_args(Task)
STAGES: tuple[Stage, ...] = get_args(Stage)
CONFIG_CLASSES: dict[str, type[RunConfig]] = {
    "pretrain": PretrainConfig,
    "retrieval": RetrievalConfig,
    "vqa": VqaConfig,
}
REFERENCE = "none"
"""The reducer whose GMACs the target is a share of."""

# What is chosen so that a reducer costs the target, and for which of them that can be.
MATCHED: dict[str, tuple[str, ...]] = {
    "nothing": ("none",),
    "num_frames": ("none",),
    "frames": ("geometry", "importance", "prune"),
    "patches": ("geometry", "importance", "prune"),
    "both": ("geometry", "importance", "prune"),
    "tokens": ("tome",),
}


@dataclass(frozen=True, kw_only=True)
class Reducer:
    """One row of the comparison.

    `matched_by` is what is chosen so that it costs the target: the number of frames that are read, or how many frames,
    patches, both or joint tokens leave in every block; `aggregation` says all else. `nothing` costs what it costs.
    `frames` are read, by default as many as the recipes say. Reducers of one attention and number of frames are a
    group, which has one that takes nothing away: off the shelf, the others reduce its weights. `target` is the
    comparison's unless given.
    """

    name: str
    frames: int | None = None
    target: float | None = None
    matched_by: Literal["nothing", "num_frames", "frames", "patches", "both", "tokens"] = "both"
    attention: Attention = "divided"
    aggregation: AggregationConfig = AggregationConfig()

    @property
    def group(self) -> tuple[Attention, int | None]:
        """Reducers with the same can share weights."""
        return self.attention, self.frames

    def __post_init__(self) -> None:
        if self.aggregation.reducer not in MATCHED[self.matched_by]:
            raise ValueError(
                f"matched_by: {self.matched_by} does not go with reducer {self.aggregation.reducer!r}, but with "
                f"{' and '.join(MATCHED[self.matched_by])}"
            )
        if self.aggregation.keep is not None or any(
            getattr(self.aggregation, f"{axis}_per_block") != 0 for axis in ("frames", "patches", "tokens")
        ):
            raise ValueError("aggregation: the numbers per block follow from the target; leave them and keep out")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one task is trained: a configuration, and overrides."""

    config: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim that the comparison is to check: that `better` has the higher quality than `worse`, both at a stage."""

    claim: str
    better: str
    worse: str
    stage: Stage


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Constant schedules of geometry that are evaluated off the shelf: each number of frames with each of patches."""

    frames_per_block: tuple[int, ...] = ()
    patches_per_block: tuple[int, ...] = ()

    @property
    def schedules(self) -> list[tuple[int, int]]:
        """Frames and patches that leave in every block, without the pair that merges nothing."""
        pairs = [(frames, patches) for frames in self.frames_per_block for patches in self.patches_per_block]
        return [pair for pair in pairs if pair != (0, 0)]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison.

    `target` is the share of GMACs that every reducer is given, of those of divided attention without a reducer over as
    many frames. `overrides` are of all recipes. The seeds draw the videos as well as the weights, so that what differs
    over them is more than the luck of one test set.
    """

    data: StorySet
    overrides: tuple[str, ...]
    pretrain: Recipe
    retrieval: Recipe
    vqa: Recipe
    target: float
    seeds: tuple[int, ...]
    reducers: tuple[Reducer, ...]
    sweep: Sweep = Sweep()
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        for target in (self.target, *(reducer.target for reducer in self.reducers)):
            if target is not None and not 0 < target < 1:
                raise ValueError(f"target: {target} is not a share between 0 and 1")

        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} must name each seed once, and at least one")
        if self.data.seed != StorySet.seed:
            raise ValueError("data.seed: every seed draws its own videos; leave it out and name seeds")

        names = [reducer.name for reducer in self.reducers]
        if len(set(names)) != len(names):
            raise ValueError(f"reducers: {', '.join(names)}: each needs a name of its own")
        if REFERENCE not in names or self.unmerged(self.named(REFERENCE)).name != REFERENCE:
            raise ValueError(f"reducers: one of divided attention must be called {REFERENCE}, matched_by nothing")

        for reducer in self.reducers:
            same = [other.name for other in self.reducers if other.group == reducer.group]
            if sum(self.named(name).matched_by == "nothing" for name in same) != 1:
                raise ValueError(f"reducers: of {', '.join(same)} exactly one must be matched_by nothing")
            self.costed_by(reducer)

        for finding in self.findings:
            for name in (finding.better, finding.worse):
                if name not in names:
                    raise ValueError(f"findings: {name} is none of the reducers {', '.join(names)}")

    def named(self, name: str) -> Reducer:
        """The reducer of that name."""
        return next(reducer for reducer in self.reducers if reducer.name == name)

    def unmerged(self, reducer: Reducer) -> Reducer:
        """The reducer of the same group which takes nothing away, whose weights the others reduce off the shelf."""
        return self._without(reducer.attention, reducer.frames)

    def costed_by(self, reducer: Reducer) -> Reducer:
        """Divided attention without a reducer over as many frames, of whose cost a reducer is given a share."""
        return self._without("divided", reducer.frames)

    def _without(self, attention: Attention, frames: int | None) -> Reducer:
        group = [one for one in self.reducers if one.group == (attention, frames) and one.matched_by == "nothing"]
        if not group:
            over = "" if frames is None else f" over {frames} frames"
            raise ValueError(f"reducers: none of {attention} attention{over} is matched_by nothing; add one")
        return group[0]


load_comparison = partial(load, Comparison)
"""The comparison in a YAML file, under overrides; ValueError as for any configuration."""


def overrides_of(comparison: Comparison, task: str) -> tuple[str, ...]:
    """One recipe's overrides, over the overrides of all."""
    recipe: Recipe = getattr(comparison, task)
    return layered(comparison.overrides, recipe.overrides)


def layered(*layers: Sequence[str]) -> tuple[str, ...]:
    """Overrides `a.b=c` of which a later layer replaces what an earlier one says of the same key."""
    by_key = {override.partition("=")[0]: override for layer in layers for override in layer}
    return tuple(by_key.values())


def encoder_of(comparison: Comparison) -> tuple[TestaConfig, VideoConfig]:
    """The video encoder that all recipes train, and what retrieval and vqa show it; pre-training may show fewer frames.

    ValueError if they do not agree, or begin with a reducer.
    """
    configs = {}
    for task, config_class in CONFIG_CLASSES.items():
        recipe: Recipe = getattr(comparison, task)
        configs[task] = load(config_class, Path(recipe.config), list(overrides_of(comparison, task)))
        if configs[task].aggregation.reducer != "none":
            raise ValueError(f"overrides: add aggregation.reducer=none; {task} is to begin without a reducer")
    if len({config.model for config in configs.values()}) > 1:
        raise ValueError("overrides: pretrain, retrieval and vqa have to agree on the model; set it for all")
    if configs["retrieval"].video != configs["vqa"].video:
        raise ValueError("overrides: retrieval and vqa have to agree on video; set it for both")
    return as_testa(configs["retrieval"].model), configs["retrieval"].video
