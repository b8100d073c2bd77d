"""The commands of a comparison, one seed at a time, each in a folder of its own that says when it is done."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.reducers.schedules import Matched, match, priced
from benchmarks.reducers.settings import (
    REFERENCE,
    STAGES,
    Comparison,
    Recipe,
    Stage,
    Task,
    encoder_of,
    layered,
    overrides_of,
)
from configs.schema import AggregationConfig
from datasets.stories import story_set
from engine.checkpoint_folder import read_json, write_json
from engine.checkpoint_rotation import BEST, LAST
from engine.results import RESULTS
from tasks.base import progress_bar

DONE = "done.json"
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
        if read_json(path)["words"] != list(self.words):
            raise ValueError(f"{self.folder}: holds a run with other settings; name a new --out, or delete that folder")
        return True

    @property
    def seconds(self) -> float:
        """How long the command took."""
        return read_json(self.folder / DONE)["seconds"]

    def results(self) -> dict[str, Any]:
        """What its evaluation found."""
        return read_json(self.folder / RESULTS)


def matched_reducers(comparison: Comparison) -> dict[str, Matched]:
    """Every reducer at the schedule that costs the target, by name."""
    model, video = encoder_of(comparison)
    found: dict[str, Matched] = {}
    for reducer in progress_bar(comparison.reducers, "schedules"):
        read = replace(video, num_frames=reducer.frames or video.num_frames)
        unreduced = match(comparison.costed_by(reducer), model, read, 0.0)
        target = comparison.target if reducer.target is None else reducer.target
        found[reducer.name] = match(reducer, model, read, target * unreduced.cost.gmacs)

        # A group shares weights. `attention` may be left out by some of it and written out by others.
        group = found[comparison.unmerged(reducer).name] if comparison.unmerged(reducer).name in found else None
        if group is not None and group.attention != found[reducer.name].attention:
            raise ValueError(
                f"reducers: {reducer.name} and {group.name} have different attention over the same frames; write "
                "attention: joint at those that have it"
            )
    return found


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
        """Fine-tuning for a task with a reducer, from the pre-trained weights if there are any."""
        matched = self.reducers[name]
        start: tuple[str, ...] = ()
        if self.comparison.pretrain.config is not None:
            start = (f"checkpoint={self.pretraining(matched.attention).folder / LAST}",)
        return self._training(task, self.folder / task / "fine_tuned" / folder_name(name), (*start, *matched.overrides))

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

        ordered = sorted(self.reducers, key=lambda name: name != self._weights_of(name))
        stages = [stage for stage in reversed(STAGES) if stage in self.comparison.stages]
        runs += [self.at(task, stage, name) for stage in stages for name in ordered]
        if task == "retrieval":
            runs += self.swept(schedules).values()
        return list(dict.fromkeys(runs))  # where nothing is taken away both stages are one run

    def _weights_of(self, name: str) -> str:
        """Whose weights a reducer reduces off the shelf."""
        return self.comparison.unmerged(self.comparison.named(name)).name

    def make_data(self, workers: int) -> None:
        """Draw the videos of this seed, unless they are there."""
        story_set.make(self.data, replace(self.comparison.data, seed=self.seed), workers)

    def _training(self, task: str, folder: Path, settings: Sequence[str]) -> Run:
        recipe: Recipe = getattr(self.comparison, task)
        assert recipe.config is not None
        own = (f"seed={self.seed}", f"data.root={self.data}", f"output_dir={folder}")
        overrides = layered(overrides_of(self.comparison, task), own, settings)
        return Run(folder, (SCRIPTS[task], "--config", recipe.config, *overrides))

    def _evaluation(self, task: Task, weights: str, folder: Path, matched: Matched) -> Run:
        checkpoint = self.fine_tuned(task, weights).folder / BEST
        words = (SCRIPTS[task], "--evaluate", f"checkpoint={checkpoint}", f"output_dir={folder}")
        return Run(folder, (*words, *matched.overrides))


def folder_name(reducer: str) -> str:
    """A reducer's name without spaces, for paths that people type."""
    return reducer.replace(" ", "_")


def run_all(runs: Sequence[Run], execute: Execute) -> None:
    """Run what is not done yet, in order; ValueError if one fails; the same call resumes with it."""
    for run in progress_bar(runs, "runs"):
        if not run.is_done:
            begun = time.monotonic()
            execute(run.words)
            write_json(run.folder / DONE, {"words": run.words, "seconds": round(time.monotonic() - begun, 1)})
