"""Measure a step that a user waits for: ours, the way the reference does it, a peer's, and what the machine could do.

    python -m benchmarks encoder
    python -m benchmarks encoder --device cuda --json video.num_frames=96
    python -m benchmarks train_step --config configs/debug/clips.yaml train.batch_size=4
    python -m benchmarks encoder --plots outputs/figures

Without --config the model is ViT-B/16 at 224 px with BERT-base, 32 frames and the paper's aggregation for them. Every
way runs in a process of its own, and they take turns; ratios are what another machine has in common.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from tqdm import tqdm

from benchmarks.measure import ChildError, Row, measure
from benchmarks.plots import FIGURES
from benchmarks.settings import Settings, sections
from benchmarks.table import machine, render, usable_cores
from scripts.parts.arguments import at_least

# Each module has `cases(settings)`; one may have `notes(settings, rows)`, lines that stand below its table.
BENCHMARKS = {
    "encoder": "benchmarks.encoder",
    "train_step": "benchmarks.train_step",
    "rerank": "benchmarks.rerank",
    "evaluate": "benchmarks.evaluate",
    "decode": "benchmarks.decode",
    "load": "benchmarks.load",
}
TAKE_DATA = ("decode", "load")


def main() -> None:
    """Parse the command line, measure, print; status 1 where a way to do the work failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=tuple(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects, times in seconds")
    parser.add_argument("--config", help="a configuration, of any task, that says the model and its input")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over it: video.num_frames=96")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=at_least(1), default=usable_cores(), help="of the CPU (default: all cores)")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="how often each way is timed (default: 5)")
    parser.add_argument("--data", help=f"folder of videos, for {' and '.join(TAKE_DATA)} (default: some are made)")
    parser.add_argument(
        "--plots",
        metavar="DIR",
        type=Path,
        help=f"instead of the table, measure how {', '.join(FIGURES)} grow, and write PNGs and their data to DIR",
    )
    arguments = parser.parse_intermixed_args()
    settings = Settings(
        arguments.config,
        tuple(arguments.overrides),
        arguments.device,
        arguments.threads,
        arguments.rounds,
        arguments.data,
    )
    try:
        _check(arguments, settings)
        if arguments.plots is not None:
            for path in FIGURES[arguments.benchmark](settings, arguments.plots):
                print(path)
            return
        benchmark = importlib.import_module(BENCHMARKS[arguments.benchmark])
        rows, failures = _measured(benchmark, settings)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    except ChildError as error:
        parser.exit(1, f"error: {error}\n")
    if arguments.json:
        print(json.dumps([row.as_json() for row in rows], indent=1))
    else:
        _print(benchmark, settings, rows)
    if failures:
        parser.exit(1, "".join(f"error: {failure}\n" for failure in failures))


def _check(arguments: argparse.Namespace, settings: Settings) -> None:
    """Refuse what cannot be measured before a process is started for it."""
    sections(settings)
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no GPU that PyTorch can use; leave it out to use the CPU")
    if settings.data is not None and arguments.benchmark not in TAKE_DATA:
        raise ValueError(f"--data: has no effect on {arguments.benchmark}, only on {' and '.join(TAKE_DATA)}")
    if settings.data is not None and not Path(settings.data).is_dir():
        raise ValueError(f"--data: {settings.data} is no folder")
    if arguments.plots is not None and arguments.benchmark not in FIGURES:
        raise ValueError(f"--plots: there is no figure of {arguments.benchmark}, only of {', '.join(FIGURES)}")
    if arguments.plots is not None and arguments.json:
        raise ValueError("--plots: writes its data as JSON beside the figures; leave out --json")


def _measured(benchmark: ModuleType, settings: Settings) -> tuple[list[Row], list[str]]:
    """The rows of all cases that could be measured, and what was wrong with the others."""
    rows, failures = [], []
    cases = benchmark.cases(settings)
    with tqdm(cases, unit="case", file=sys.stderr, disable=None) as progress:
        for case in progress:
            progress.set_postfix_str(case.name)
            try:
                rows.append(measure(case, settings))
                progress.write(f"{case.name}: ours {rows[-1].ours_s:.3g} s", file=sys.stderr)
            except ChildError as error:
                failures.append(f"{case.name}: {error}")
    return rows, failures


def _print(benchmark: ModuleType, settings: Settings, rows: Sequence[Row]) -> None:
    print(machine(settings), render(rows), sep="\n\n")
    notes = benchmark.notes(settings, rows) if hasattr(benchmark, "notes") else []
    if notes:
        print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
