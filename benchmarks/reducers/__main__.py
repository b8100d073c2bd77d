"""Compare ways to spend fewer multiply-accumulates on long videos, all at one cost: quality against GMACs and time.

    python -m benchmarks.reducers --config configs/comparison/stories64.yaml --out outputs/reducers
    python -m benchmarks.reducers --config configs/comparison/stories64.yaml --out outputs/reducers --seeds 1
    python -m benchmarks.reducers --config configs/comparison/stories64.yaml --out outputs/reducers --measure-only

The recipes of the file name the system, which may be any. For every seed videos are drawn, a model is pre-trained
without a reducer and fine-tuned for retrieval and question answering, where the file has recipes for these; each
reducer is then put on the fine-tuned weights (off the shelf), and fine-tuned itself, equally long. All of it goes
through the training commands of this project, which are printed. The same command resumes; several processes may share
OUT if they have different --seeds, and the last one's report is of all. --tasks retrieval leaves answering, and the
time it takes, for later.

OUT then holds comparison.md (table and findings), comparison.json, rows.json (for `benchmarks.reducers.front`) and
figures. --measure-only times encoding with each reducer, and its memory, and adds that; --plot-only writes the report
again from what is there.
"""

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import ChildError
from benchmarks.reducers.cost import add_peaks, read_measured, times
from benchmarks.reducers.figures import draw_quality, draw_sweep, draw_tradeoff, write
from benchmarks.reducers.front_rows import exported
from benchmarks.reducers.recipes import retrieval_of
from benchmarks.reducers.report import Row, rows_of, sweep_rows, table, verdict
from benchmarks.reducers.runs import Run, Seed, matched_reducers, run_all, swept
from benchmarks.reducers.settings import REFERENCE, TASKS, Comparison, Task, load_comparison
from engine.checkpoint_folder import replacing_file, write_json
from engine.command_line import exit_status
from engine.folder_lock import only_writer
from engine.logging import start_logging
from scripts.parts.arguments import at_least
from scripts.parts.commands import run_printed

MEASURED, REPORT, TABLE, ROWS = "measured.json", "comparison.json", "comparison.md", "rows.json"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="a file like configs/comparison/stories64.yaml")
    parser.add_argument("--out", type=Path, help="folder to write (outputs/NAME of the file)")
    parser.add_argument("--seeds", type=int, nargs="+", help="run these of the configured seeds alone")
    parser.add_argument("--tasks", choices=TASKS, nargs="+", help="run these alone (all that have a recipe)")
    parser.add_argument("--workers", type=at_least(1), default=1, help="processes that draw videos (%(default)s)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--measure-only", action="store_true", help="time the reducers, run nothing else, report")
    only.add_argument("--plot-only", action="store_true", help="write the report again, run nothing")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the file, such as target=0.5")
    options = parser.parse_intermixed_args(arguments)
    options.out = options.out or Path("outputs") / options.config.stem
    return options


class ReducerComparison:
    """The comparison in a folder: its runs, its measurement and its report."""

    def __init__(self, comparison: Comparison, out: Path) -> None:
        self.comparison, self.out = comparison, out
        self.measured = out / MEASURED
        self.reducers, self.schedules = matched_reducers(comparison, self.measured), swept(comparison)

    def seed(self, number: int) -> Seed:
        """The runs of one seed."""
        return Seed(self.comparison, self.out, number, self.reducers)

    def run(self, numbers: list[int], tasks: list[Task], workers: int) -> None:
        """Run what these seeds lack; ValueError if a run fails or another process is at the same seed."""
        for number in numbers:
            seed = self.seed(number)
            with only_writer(seed.folder):
                seed.make_data(workers)
                for task in tasks:
                    run_all(seed.runs_of(task, self.schedules), run_printed)

    def measure(self) -> None:
        """Time every reducer's schedule, what takes nothing away first, and measure its memory."""
        schedules = sorted(self.reducers.values(), key=lambda matched: matched.name != REFERENCE)
        config = retrieval_of(self.comparison)
        times(schedules, config, self.measured)
        add_peaks(schedules, config, self.measured)

    def report(self) -> list[str]:
        """Write all numbers of the seeds that each task has finished, and figures of recall; the lines of the table."""
        finished, done = self._finished()
        if not any(finished.values()):
            return [f"{self.out}: no task is finished for any seed yet, so there is nothing to report"]

        rows = rows_of(self.comparison, finished, self.reducers, read_measured(self.measured))
        sweep = sweep_rows(finished["retrieval"], self.schedules)
        findings = [verdict(finding, rows) for finding in self.comparison.findings]

        numbers: dict[Task, list[int]] = {}
        for task, seeds in finished.items():
            numbers[task] = [seed.seed for seed in seeds]
        seeds_of = "; ".join(f"{task} of seeds {', '.join(map(str, own)) or 'none'}" for task, own in numbers.items())
        lines = [*table(rows), "", *(f"- {finding}" for finding in findings), "", f"{seeds_of}."]
        with replacing_file(self.out / TABLE) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")

        report: dict[str, Any] = {
            "seeds": numbers,
            "seconds": sum(run.seconds for run in done),
            "rows": [asdict(row) for row in rows],
            "sweep": sweep,
        }
        write_json(self.out / REPORT, {**report, "findings": findings})
        if finished["retrieval"]:
            write_json(self.out / ROWS, exported(rows, self.encoder, numbers["retrieval"]))
            self._draw(rows, sweep)
        return lines

    def _draw(self, rows: list[Row], sweep: list[dict[str, Any]]) -> None:
        figures = {"quality": draw_quality(rows), "tradeoff": draw_tradeoff(rows)}
        if sweep:
            reference = next(row for row in rows if row.reducer == REFERENCE)
            figures["sweep"] = draw_sweep(sweep, reference)
        write(figures, self.out)

    @property
    def encoder(self) -> str:
        """What reports call the encoder."""
        model = self.reducers[REFERENCE].model
        return self.comparison.encoder or " ".join(filter(None, (model.name, self.reducers[REFERENCE].attention)))

    def _finished(self) -> tuple[dict[Task, list[Seed]], set[Run]]:
        """The seeds that have all runs of each task, and every run that is done."""
        finished: dict[Task, list[Seed]] = {task: [] for task in self.comparison.tasks}
        done: set[Run] = set()
        for number in self.comparison.seeds:
            seed = self.seed(number)
            for task in self.comparison.tasks:
                runs = seed.runs_of(task, self.schedules)
                done.update(run for run in runs if run.is_done)
                if all(run.is_done for run in runs):
                    finished[task].append(seed)
        return finished, done


def asked_seeds(comparison: Comparison, asked: list[int] | None) -> list[int]:
    """The seeds to run; ValueError for one that the file does not have."""
    unknown = [seed for seed in asked or () if seed not in comparison.seeds]
    if unknown:
        known = ", ".join(map(str, comparison.seeds))
        raise ValueError(f"--seeds {unknown[0]}: the configuration has {known}; add it there, or leave it out here")
    return asked or list(comparison.seeds)


def asked_tasks(comparison: Comparison, asked: list[Task] | None) -> list[Task]:
    """The tasks to run; ValueError for one without a recipe."""
    for task in asked or ():
        if task not in comparison.tasks:
            raise ValueError(f"--tasks {task}: the configuration has no recipe {task}; add it there, or leave it out")
    return asked or list(comparison.tasks)


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks; a bad one, or a run that fails, ends it with one line and status 2."""
    options = parse_arguments(arguments)
    begun = time.monotonic()
    with exit_status():
        start_logging()
        try:
            comparison = load_comparison(options.config, options.overrides)
            seeds, tasks = asked_seeds(comparison, options.seeds), asked_tasks(comparison, options.tasks)
            runs = ReducerComparison(comparison, options.out)
            if options.measure_only:
                runs.measure()
            elif not options.plot_only:
                runs.run(seeds, tasks, options.workers)
            with only_writer(options.out, wait=True):  # another seed may be at its report
                lines = runs.report()
        except KeyboardInterrupt:
            print("benchmarks.reducers: interrupted; the same command resumes from here", file=sys.stderr)
            raise SystemExit(130) from None
        except (OSError, ChildError) as error:
            raise ValueError(f"{options.out}: {error}") from error

        print("\n".join(lines))
        print(f"\n{options.out}: {time.monotonic() - begun:.0f} seconds")


if __name__ == "__main__":
    main()
