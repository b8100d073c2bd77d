"""The commands of a comparison, one seed at a time, each in a folder of its own that says when it is done."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.reducers.cost import key_of, times
from benchmarks.reducers.in_turn import DONE, write_done
from benchmarks.reducers.recipes import encoder_of, layered, overrides_of, retrieval_of
from benchmarks.reducers.schedules import Matched, around, match, priced, without_defaults
from benchmarks.reducers.settings import REFERENCE, STAGES, Comparison, Recipe, Stage, Task
from configs.schema import AggregationConfig
from datasets.stories import story_set
from engine.checkpoint_folder import read_json, write_json
from engine.checkpoint_rotation import BEST, LAST
from engine.results import RESULTS
from tasks.base import progress_bar

SCRIPTS = {"pretrain": "pretrain.py", "retrieval": "train_retrieval.py", "vqa": "train_vqa.py"}
Execute = Callable[[tuple[str, ...]], None]
"""Runs `python WORDS`, or raises ValueError."""


@dataclass(frozen=True)
class Run:
    """One command, `python WORDS`, and the folder it writes to."""

    folder: Path
    words: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether the command has been run to its end; ValueError if another one was, in the same folder."""
        path = self.folder / DONE
        if not path.exists():
            return False
        if without_defaults(read_json(path)["words"]) != without_defaults(self.words):
            raise ValueError(f"{self.folder}: holds a run with other settings; name a new --out, or delete that folder")
        return True

    @property
    def seconds(self) -> float:
        """How long the command took."""
        return read_json(self.folder / DONE)["seconds"]

    def results(self) -> dict[str, Any]:
        """What its evaluation found."""
        return read_json(self.folder / RESULTS)


def matched_reducers(comparison: Comparison, path: Path | None = None) -> dict[str, Matched]:
    """Every reducer at the schedule that costs the target, by name; `path` keeps measured times, if they are needed."""
    model, video = encoder_of(comparison)
    found: dict[str, Matched] = {}
    choices: dict[str, list[Matched]] = {}
    for reducer in progress_bar(comparison.reducers, "schedules"):
        read = replace(video, num_frames=reducer.frames or video.num_frames)
        unreduced = match(comparison.costed_by(reducer), model, read, 0.0)
        gmacs = comparison.target_of(reducer) * unreduced.cost.gmacs
        if reducer.price == "milliseconds":
            choices[reducer.name] = around(reducer, model, read, gmacs)
        else:
            found[reducer.name] = match(reducer, model, read, gmacs)

    if choices:
        assert path is not None, "who compares by time says where times are kept"
        found |= _matched_by_time(comparison, found, choices, path)

    for reducer in comparison.reducers:
        # A group shares weights. `attention` may be left out by some of it and written out by others.
        group = found[comparison.unmerged(reducer).name]
        if group.attention != found[reducer.name].attention:
            raise ValueError(
                f"reducers: {reducer.name} and {group.name} have different attention over the same frames; write "
                "attention: joint at those that have it"
            )
    return {reducer.name: found[reducer.name] for reducer in comparison.reducers}


def _matched_by_time(
    comparison: Comparison, found: dict[str, Matched], choices: dict[str, list[Matched]], path: Path
) -> dict[str, Matched]:
    """Of each reducer's choices the one whose time is nearest to its target."""
    schedules = [found[REFERENCE], *found.values(), *(matched for own in choices.values() for matched in own)]
    seconds = times(schedules, retrieval_of(comparison), path)
    chosen = {}
    for name, own in choices.items():
        reducer = comparison.named(name)
        unreduced = found[comparison.costed_by(reducer).name]
        target = comparison.target_of(reducer) * seconds[key_of(unreduced)]["seconds"]
        distances = [abs(seconds[key_of(matched)]["seconds"] - target) for matched in own]
        chosen[name] = own[distances.index(min(distances))]
    return chosen


def swept(comparison: Comparison) -> dict[tuple[int, int], Matched]:
    """The reference's encoder under each schedule of the sweep, by frames and patches that leave in every block."""
    model, video = encoder_of(comparison)
    found = {}
    for frames, patches in comparison.sweep.schedules:
        aggregation = AggregationConfig(reducer="geometry", frames_per_block=frames, patches_per_block=patches)
        found[frames, patches] = priced("geometry", model, video, aggregation)
    return found


class Seed:
    """The runs of one seed: where they are, and in which order they are to be run."""

    def __init__(self, comparison: Comparison, out: Path, seed: int, reducers: dict[str, Matched]) -> None:
        self.comparison, self.seed, self.reducers = comparison, seed, reducers
        self.folder = out / f"seed{seed}"
        self.data = self.folder / "videos"

    def pretraining(self, attention: str | None) -> Run:
        """Pre-training without a reducer, which all fine-tuning of that attention starts from."""
        if attention is None:
            return self._training("pretrain", self.folder / "pretrain", ())
        return self._training("pretrain", self.folder / f"pretrain_{attention}", (f"model.attention={attention}",))

    def fine_tuned(self, task: Task, name: str) -> Run:
        """Fine-tuning for a task with a reducer, from the pre-trained weights if there are any.

        Of given weights it is their evaluation as they are, and of another row's weights the evaluation of these.
        """
        matched = self.reducers[name]
        if self.comparison.weights is not None:
            return self._evaluation(task, name, self.folder / task / "given" / folder_name(name), matched)
        folder, trained = self.folder / task / "fine_tuned" / folder_name(name), self.comparison.named(name).weights_of
        if trained is not None:
            return self._evaluation(task, trained, folder, matched)

        start: tuple[str, ...] = ()
        if self.comparison.pretrain.config is not None:
            start = (f"checkpoint={self.pretraining(matched.attention).folder / LAST}",)
        return self._training(task, folder, (*start, *matched.overrides))

    def off_the_shelf(self, task: Task, name: str) -> Run:
        """The weights that were fine-tuned without a reducer, evaluated with one."""
        matched = self.reducers[name]
        weights = self._weights_of(name)
        if name == weights:
            return self.fine_tuned(task, name)
        return self._evaluation(task, weights, self.folder / task / "off_the_shelf" / folder_name(name), matched)

    def at(self, task: Task, stage: Stage, name: str) -> Run:
        """The run that has the results of a reducer at a stage."""
        return self.fine_tuned(task, name) if stage == "fine_tuned" else self.off_the_shelf(task, name)

    def swept(self, schedules: dict[tuple[int, int], Matched]) -> dict[tuple[int, int], Run]:
        """Retrieval off the shelf with other schedules."""
        folder = self.folder / "retrieval" / "sweep"
        return {
            (frames, patches): self._evaluation("retrieval", REFERENCE, folder / f"{frames}_{patches}", matched)
            for (frames, patches), matched in schedules.items()
        }

    def runs_of(self, task: Task, schedules: dict[tuple[int, int], Matched]) -> list[Run]:
        """All that a task's numbers rest on, each run after those whose weights it takes."""
        attentions = dict.fromkeys(matched.attention for matched in self.reducers.values())
        runs: list[Run] = []
        if self.comparison.pretrain.config is not None:
            runs += [self.pretraining(attention) for attention in attentions]

        ordered = sorted(self.reducers, key=self._turn)
        for stage in reversed(STAGES):
            wanted = (name for name in ordered if self.comparison.has(stage, self.comparison.named(name)))
            runs += [self.at(task, stage, name) for name in wanted]
        if task == "retrieval":
            runs += self.swept(schedules).values()
        return list(dict.fromkeys(runs))  # where nothing is taken away both stages are one run

    def _turn(self, name: str) -> int:
        """Whose turn comes first: what takes nothing away, then what is trained, then what takes its weights."""
        if name == self._weights_of(name):
            return 0
        return 1 if self.comparison.named(name).weights_of is None else 2

    def _weights_of(self, name: str) -> str:
        """Whose weights a reducer reduces off the shelf."""
        return self.comparison.unmerged(self.comparison.named(name)).name

    def make_data(self, workers: int) -> None:
        """Draw the videos of this seed, unless they are there, or others than stories are compared on."""
        if not self.comparison.own_data:
            story_set.make(self.data, replace(self.comparison.data, seed=self.seed), workers)

    def _training(self, task: str, folder: Path, settings: Sequence[str]) -> Run:
        recipe: Recipe = getattr(self.comparison, task)
        assert recipe.config is not None
        own = (f"seed={self.seed}", *self._data_root, f"output_dir={folder}")
        overrides = layered(overrides_of(self.comparison, task), own, settings)
        return Run(folder, (SCRIPTS[task], "--config", recipe.config, *overrides))

    def _evaluation(self, task: Task, weights: str, folder: Path, matched: Matched) -> Run:
        if self.comparison.weights is not None:
            recipe: Recipe = getattr(self.comparison, task)
            assert recipe.config is not None
            given = (f"checkpoint={self.comparison.weights}", *self._data_root, f"output_dir={folder}")
            overrides = layered(overrides_of(self.comparison, task), given, matched.overrides)
            return Run(folder, (SCRIPTS[task], "--evaluate", "--config", recipe.config, *overrides))

        checkpoint = self.fine_tuned(task, weights).folder / BEST
        words = (SCRIPTS[task], "--evaluate", f"checkpoint={checkpoint}", f"output_dir={folder}")
        return Run(folder, (*words, *matched.overrides))

    @property
    def _data_root(self) -> tuple[str, ...]:
        return () if self.comparison.own_data else (f"data.root={self.data}",)


def folder_name(reducer: str) -> str:
    """A reducer's name without spaces, for paths that people type."""
    return reducer.replace(" ", "_")


def run_all(runs: Sequence[Run], execute: Execute) -> None:
    """Run what is not done yet, in order; ValueError if one fails; the same call resumes with it.

    Evaluations that follow each other share a process; each is recorded as soon as it is done.
    """
    groups: list[list[Run]] = []
    for is_evaluation, members in groupby(runs, key=lambda run: "--evaluate" in run.words):
        own = list(members)
        groups += [own] if is_evaluation else [[run] for run in own]

    for group in progress_bar(groups, "runs"):
        waiting = [run for run in group if not run.is_done]
        if len(waiting) > 1:
            run_in_turn(waiting, execute)
        elif waiting:
            begun = time.monotonic()
            execute(waiting[0].words)
            write_done(waiting[0].folder, waiting[0].words, time.monotonic() - begun)


def run_in_turn(runs: Sequence[Run], execute: Execute) -> None:
    """Run several commands in one process of their own."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "runs.json"
        write_json(path, [{"folder": str(run.folder), "words": run.words} for run in runs])
        execute(("-m", "benchmarks.reducers.in_turn", str(path)))
