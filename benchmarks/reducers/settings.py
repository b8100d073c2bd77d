"""What a comparison of reducers is made of: data, recipes, the reducers and their common cost, from one YAML file.

The recipes name the system. Which reducers its encoder can do, and how a price becomes a schedule, its `model` section
says (`configs.models.base.ModelConfig`).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from configs.load import load
from configs.models.base import ModelConfig
from configs.reducers import AMOUNTS, Axis
from configs.schema import AggregationConfig
from datasets.stories.story_set import StorySet

Task = Literal["retrieval", "vqa"]
Stage = Literal["off_the_shelf", "fine_tuned"]
Attention = Literal["divided", "joint"]
Knob = Literal["nothing", "num_frames", "image_size", "frames", "patches", "both", "tokens", "early", "keep", "given"]
Price = Literal["gmacs", "milliseconds"]
TASKS: tuple[Task, ...] = get_args(Task)
STAGES: tuple[Stage, ...] = get_args(Stage)
PRICES: tuple[Price, ...] = get_args(Price)
REFERENCE = "none"
"""The reducer of whose price the target is a share."""
BY_TIME = "by time"
"""What is added to the name of a reducer that costs its target in milliseconds."""

AXES: dict[Knob, tuple[Axis, ...]] = {
    "frames": ("frames",),
    "patches": ("patches",),
    "both": ("frames", "patches"),
    "tokens": ("tokens",),
}
"""The axes that a reducer shortens to cost the target, for the knobs that turn numbers a block."""
OF_NO_REDUCER: tuple[Knob, ...] = ("nothing", "num_frames", "image_size")


@dataclass(frozen=True, kw_only=True)
class Reducer:
    """One row of the comparison.

    `matched_by` is the knob that is turned until the reducer costs the target: how many frames are read (`num_frames`),
    how large they are (`image_size`), the share of all tokens that is kept at the end (`keep`), or how many frames,
    patches, both or joint tokens leave a block; by default, what leaves is what the reducer can shorten here. With
    `early` joint tokens leave as early as they can: half in the first block, then half of what is left. With merging
    `inside` after run-length tokens, `keep` turns both: each keeps the root of that share, and merging is early.
    `aggregation` says all else. With `blocks`, tokens leave in the first blocks alone. Two knobs do not look at the
    target: `nothing` takes nothing away, and `given` takes the schedule in `aggregation` as it is.

    `frames` are read, by default as many as the recipes say. `attention` is for an encoder that has the choice, by
    default the recipes'. Reducers of one attention and number of frames are a group, which has one that takes nothing
    away: off the shelf, the others reduce its weights. `target` is the comparison's unless given; `price` says what it
    is a share of.

    With `weights_of`, nothing is trained for the row: it has the weights that another one, whose schedule is given, was
    fine-tuned to. So one training serves several budgets, which its `aggregation.train_keep` may have drawn.
    """

    name: str
    frames: int | None = None
    target: float | None = None
    price: Price = "gmacs"
    matched_by: Knob | None = None
    blocks: int | None = None
    attention: Attention | None = None
    aggregation: AggregationConfig = AggregationConfig()
    weights_of: str | None = None

    @property
    def group(self) -> tuple[Attention, int | None]:
        """Reducers of the same group can share weights."""
        return self.attention or "divided", self.frames

    def __post_init__(self) -> None:
        reducer, knob = self.aggregation.reducer, self.matched_by
        if reducer == "none" and knob not in OF_NO_REDUCER:
            raise ValueError(
                f"matched_by: {knob or 'left out'} does not go with reducer 'none'; set it to "
                f"{' or '.join(OF_NO_REDUCER)}, or choose a reducer"
            )
        if reducer != "none" and knob in OF_NO_REDUCER:
            raise ValueError(f"matched_by: {knob} does not go with reducer {reducer!r}; leave one of them out")

        if knob == "given" and self.target is not None:
            raise ValueError("target: has no effect on a given schedule; leave it out")
        if self.blocks is not None and knob is not None and knob not in AXES:
            raise ValueError(f"blocks: has no effect when matched_by is {knob}; leave it out")

        if self.aggregation.inside != "none" and knob not in ("keep", "given"):
            raise ValueError(
                f"matched_by: {knob or 'left out'} does not go with inside, whose two schedules follow from one share; "
                "set it to keep, or to given"
            )

        if self.weights_of is not None and knob == "nothing":
            raise ValueError("weights_of: does not go with matched_by nothing, whose weights are its own; leave it out")
        if self.weights_of is not None and self.aggregation.train_keep is not None:
            raise ValueError(
                "aggregation.train_keep: has no effect on a row with weights_of, which is not trained; leave it out"
            )

        has_schedule = self.aggregation.keep is not None or any(getattr(self.aggregation, name) for name in AMOUNTS)
        if has_schedule != (knob == "given"):
            raise ValueError(
                "aggregation: the numbers per block follow from the target; leave them and keep out, or set matched_by "
                "to given, which takes them as they are"
            )

    def axes(self, model: ModelConfig) -> tuple[Axis, ...]:
        """The axes that are shortened until the price is met; ValueError if the encoder cannot shorten them."""
        possible = model.reducers.get(self.aggregation.reducer, ())
        axes = possible if self.matched_by is None else AXES[self.matched_by]
        if not axes or not set(axes) <= set(possible):
            able = ", ".join(name for name, own in model.reducers.items() if own and set(axes) <= set(own))
            raise ValueError(
                f"reducers: {self.name}: {model.name} cannot shorten {' and '.join(axes) or 'anything'} by reducer "
                f"{self.aggregation.reducer!r}; its encoder takes {able or 'no reducer for that'}"
            )
        return axes


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one task is trained: a configuration, and overrides. Without a configuration the task is left out."""

    config: str | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """Which reducers are fine-tuned, and at which prices, where a comparison has that stage; null: all of them."""

    reducers: tuple[str, ...] | None = None
    prices: tuple[Price, ...] = PRICES


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim to check: that `better` is at least `points` above `worse`, both at a stage; 0 is any more at all."""

    claim: str
    better: str
    worse: str
    stage: Stage
    points: float = 0.0


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

    `target` is the share of the price that every reducer is given, of that of the encoder without a reducer over as
    many frames (with divided attention, if it has the choice). With both `prices`, each reducer has two rows: at its
    share of GMACs, and at its share of the measured milliseconds. `encoder` is the name in reports.

    `overrides` are of all recipes. Fine-tuning starts from what `pretrain` has trained, or without it from what its
    recipe says. The seeds draw the videos as well as the weights, so that what differs over them is more than the luck
    of one test set. Of the `stages` one may be left out. What takes nothing away is always trained; which others are,
    `fine_tuned` says. Rows with `weights_of` belong to that stage alone, as rows that draw budgets do.

    With `own_data` the recipes name their data, such as a public dataset, and no stories are drawn. With `weights`,
    trained ones at a path or an address, nothing is trained at all: the recipes say how these are evaluated.
    """

    encoder: str | None = None
    data: StorySet = StorySet()
    own_data: bool = False
    weights: str | None = None
    overrides: tuple[str, ...] = ()
    pretrain: Recipe = Recipe()
    retrieval: Recipe
    vqa: Recipe = Recipe()
    target: float
    prices: tuple[Price, ...] = ("gmacs",)
    seeds: tuple[int, ...]
    reducers: tuple[Reducer, ...]
    stages: tuple[Stage, ...] = STAGES
    fine_tuned: FineTuned = FineTuned()
    sweep: Sweep = Sweep()
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.retrieval.config is None:
            raise ValueError("retrieval.config: missing; every comparison is of retrieval at least")
        for target in (self.target, *(reducer.target for reducer in self.reducers)):
            if target is not None and not 0 < target < 1:
                raise ValueError(f"target: {target} is not a share between 0 and 1")

        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} must name each seed once, and at least one")
        if self.own_data and self.data != StorySet():
            raise ValueError("own_data: leave out data, or stories would be described and not drawn")
        if self.data.seed != StorySet.seed:
            raise ValueError("data.seed: every seed draws its own videos; leave it out and name seeds")

        if self.weights is not None and (
            self.stages != ("off_the_shelf",) or self.pretrain.config or len(self.seeds) > 1
        ):
            raise ValueError("weights: trains nothing; set stages to [off_the_shelf], seeds to one, and no pretrain")
        if not self.prices or len(set(self.prices)) != len(self.prices):
            raise ValueError(f"prices: {list(self.prices)} must name each price once, and at least one")

        names = [reducer.name for reducer in self.reducers]
        if len(set(names)) != len(names):
            raise ValueError(f"reducers: {', '.join(names)}: each needs a name of its own")
        if REFERENCE not in names or self.unmerged(self.named(REFERENCE)).name != REFERENCE:
            raise ValueError(f"reducers: one must be called {REFERENCE}, matched_by nothing, over the recipes' frames")

        for reducer in self.reducers:
            same = [other.name for other in self.reducers if other.group == reducer.group]
            if sum(self.named(name).matched_by == "nothing" for name in same) != 1:
                raise ValueError(f"reducers: of {', '.join(same)} exactly one must be matched_by nothing")
            self.costed_by(reducer)
            self._check_weights(reducer)

        unknown = set(self.fine_tuned.reducers or ()) - set(names)
        if unknown:
            raise ValueError(f"fine_tuned.reducers: {min(unknown)} is none of the reducers {', '.join(names)}")
        if self.fine_tuned != FineTuned() and "fine_tuned" not in self.stages:
            raise ValueError("fine_tuned: has no effect without the stage; add fine_tuned to stages, or leave it out")
        if not self.stages or len(set(self.stages)) != len(self.stages):
            raise ValueError(f"stages: {list(self.stages)} must name each stage once, and at least one")
        for finding in self.findings:
            if finding.stage not in self.stages:
                raise ValueError(f"findings: {finding.claim}: stage {finding.stage} is none of stages; add it there")
            for name in (finding.better, finding.worse):
                if name not in names:
                    raise ValueError(f"findings: {name} is none of the reducers {', '.join(names)}")
                if finding.stage == "fine_tuned" and not self._is_fine_tuned(self.named(name)):
                    raise ValueError(f"findings: {finding.claim}: {name} is not fine-tuned; add it to fine_tuned")
                if finding.stage == "off_the_shelf" and not self.has("off_the_shelf", self.named(name)):
                    raise ValueError(f"findings: {finding.claim}: {name} has no row off the shelf; name another")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that have a recipe."""
        return tuple(task for task in TASKS if getattr(self, task).config is not None)

    def has(self, stage: Stage, reducer: Reducer) -> bool:
        """Whether the reducer is run at a stage. What takes nothing away always is: the others need its weights."""
        if reducer.matched_by == "nothing":
            return True
        if stage not in self.stages:
            return False
        if reducer.weights_of is not None:
            return stage == "fine_tuned" and self.has(stage, self.named(reducer.weights_of))
        if stage == "off_the_shelf":
            return reducer.aggregation.train_keep is None  # else the same as without: nothing draws in an evaluation

        # A given schedule is matched by no price.
        at_its_price = reducer.matched_by == "given" or reducer.price in self.fine_tuned.prices
        return at_its_price and self._is_fine_tuned(reducer)

    def _is_fine_tuned(self, reducer: Reducer) -> bool:
        """Whether the reducer is fine-tuned at any price."""
        if reducer.matched_by == "nothing":
            return True
        if reducer.weights_of is not None:
            return self._is_fine_tuned(self.named(reducer.weights_of))
        chosen = self.fine_tuned.reducers
        has_price = reducer.matched_by == "given" or bool(set(self.prices) & set(self.fine_tuned.prices))
        return has_price and (chosen is None or reducer.name.removesuffix(f" {BY_TIME}") in chosen)

    def _check_weights(self, reducer: Reducer) -> None:
        """Refuse weights of a row that has none of its own, and drawn budgets that nothing is trained with."""
        if reducer.aggregation.train_keep is not None and not self.has("fine_tuned", reducer):
            raise ValueError(
                f"reducers: {reducer.name}: train_keep has no effect off the shelf; have it fine_tuned, or leave it out"
            )
        if reducer.weights_of is None:
            return

        others = {
            other.name: other
            for other in self.reducers
            if other.matched_by == "given" and other.weights_of is None and other.group == reducer.group
        }
        source = others.get(reducer.weights_of)
        if source is None or not self.has("fine_tuned", source):
            able = ", ".join(name for name, other in others.items() if self.has("fine_tuned", other))
            raise ValueError(
                f"reducers: {reducer.name}: weights_of {reducer.weights_of}: no row that is fine-tuned with a given "
                f"schedule, the same attention and frames; there is {able or 'none'}"
            )

    def target_of(self, reducer: Reducer) -> float:
        """The share of the price that a reducer is given."""
        return self.target if reducer.target is None else reducer.target

    def named(self, name: str) -> Reducer:
        """The reducer of that name."""
        return next(reducer for reducer in self.reducers if reducer.name == name)

    def unmerged(self, reducer: Reducer) -> Reducer:
        """The reducer of the same group which takes nothing away, whose weights the others reduce off the shelf."""
        return self._without(*reducer.group)

    def costed_by(self, reducer: Reducer) -> Reducer:
        """The encoder without a reducer over as many frames, of whose cost a reducer is given a share."""
        return self._without("divided", reducer.frames)

    def _without(self, attention: Attention, frames: int | None) -> Reducer:
        group = [one for one in self.reducers if one.group == (attention, frames) and one.matched_by == "nothing"]
        if not group:
            over = "" if frames is None else f" over {frames} frames"
            raise ValueError(f"reducers: none of {attention} attention{over} is matched_by nothing; add one")
        return group[0]


def load_comparison(path: Path, overrides: list[str]) -> Comparison:
    """The comparison in a YAML file, each reducer at all prices; ValueError as for any configuration."""
    comparison = load(Comparison, path, overrides)
    priced: list[Reducer] = []
    for reducer in comparison.reducers:
        if reducer.matched_by in ("nothing", "given"):
            priced.append(reducer)
            continue
        for price in comparison.prices:
            name = reducer.name if price == "gmacs" else f"{reducer.name} {BY_TIME}"
            priced.append(replace(reducer, name=name, price=price))
    return replace(comparison, reducers=tuple(priced))
