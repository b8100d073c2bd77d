"""Measure a step that a user waits for: ours, the reference's way to do it, a peer's, and what the machine could do.

    python -m benchmarks encoder
    python -m benchmarks encoder --system testa --device cuda --json video.num_frames=96
    python -m benchmarks train_step --config configs/debug/clips.yaml train.batch_size=4
    python -m benchmarks encoder --plots outputs/figures
    python -m benchmarks hour --rounds 1 --keep outputs/hour.json --only bf16

Without --config the model is ViT-B/16 at 224 px with BERT-base, 32 frames and the paper's aggregation for them. Every
way runs in its own process, and they take turns. Seconds are this machine's; ratios compare across machines.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from tqdm import tqdm

from benchmarks.kept import KeptRows
from benchmarks.measure import Case, ChildError, Row, measure
from benchmarks.plots import FIGURES
from benchmarks.settings import Settings, sections
from benchmarks.table import machine, render, usable_cores
from scripts.parts.arguments import at_least

BENCHMARKS: dict[str, dict[str, str]] = {
    "testa": {
        "encoder": "benchmarks.encoder",
        "train_step": "benchmarks.train_step",
        "rerank": "benchmarks.rerank",
        "evaluate": "benchmarks.evaluate",
        "decode": "benchmarks.decode",
        "load": "benchmarks.load",
        "hour": "benchmarks.hour",
    },
    "stoa": {
        "train_step": "benchmarks.stoa.train_step",
        "prefix_loss": "benchmarks.stoa.prefix_loss",
        "captions": "benchmarks.stoa.captions",
        "rerank": "benchmarks.stoa.rerank",
    },
    "umt": {"encoder": "benchmarks.umt.encoder"},
    "tvts": {"encoder": "benchmarks.tvts.encoder"},
}
"""The benchmarks of each system. A module has `cases(settings)`, and may have `notes(settings, rows)`: lines to print
below the table."""
DEFAULT_SYSTEM = "testa"
"""Its rows are named after the work alone; rows of other systems begin with the system's name."""
TAKE_DATA = ("decode", "load")


@dataclass(frozen=True)
class Request:
    """What the command line asks for, besides the settings of a measurement."""

    system: str
    benchmark: str
    plots: Path | None
    as_json: bool
    only: tuple[str, ...]
    keep: Path | None


def main() -> None:
    """Parse the command line, measure, print; status 1 where a way to do the work failed."""
    parser = _parser()
    arguments = parser.parse_intermixed_args()
    request = Request(
        arguments.system, arguments.benchmark, arguments.plots, arguments.json, tuple(arguments.only), arguments.keep
    )
    settings = Settings(
        arguments.config,
        tuple(arguments.overrides),
        arguments.device,
        arguments.threads,
        arguments.rounds,
        arguments.data,
    )

    try:
        module = benchmark_module(request.system, request.benchmark)
        _check(request, settings)

        if request.plots is not None:
            for path in FIGURES[request.benchmark](settings, request.plots):
                print(path)
            return

        benchmark = importlib.import_module(module)
        rows, failures = _measured(request, benchmark, settings)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    except ChildError as error:
        parser.exit(1, f"error: {error}\n")

    if request.as_json:
        print(json.dumps([row.as_json() for row in rows], indent=1))
    else:
        _print(benchmark, settings, rows)
    if failures:
        parser.exit(1, "".join(f"error: {failure}\n" for failure in failures))


def benchmark_module(system: str, benchmark: str) -> str:
    """The module that measures this work of a system; `ValueError` names what there is instead."""
    if system not in BENCHMARKS:
        raise ValueError(f"--system: {system} has no benchmarks; there are benchmarks of {', '.join(BENCHMARKS)}")
    if benchmark not in BENCHMARKS[system]:
        raise ValueError(f"--system {system}: has no benchmark {benchmark}, only {', '.join(BENCHMARKS[system])}")
    return BENCHMARKS[system][benchmark]


def _parser() -> argparse.ArgumentParser:
    names = dict.fromkeys(name for benchmarks in BENCHMARKS.values() for name in benchmarks)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=tuple(names))
    parser.add_argument("--system", default=DEFAULT_SYSTEM, help="whose models to measure (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects, times in seconds")
    parser.add_argument("--config", help="a configuration, of any task, that says the model and its input")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over it: video.num_frames=96")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=at_least(1), default=usable_cores(), help="of the CPU (default: all cores)")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="how often each way is timed (default: 5)")
    parser.add_argument("--data", help=f"folder of videos, for {' and '.join(TAKE_DATA)} (default: some are made)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORDS",
        help="measure the cases whose names contain these words; given twice, the cases that contain both",
    )
    parser.add_argument(
        "--keep",
        metavar="FILE",
        type=Path,
        help="write each row to this JSON file once it is measured, and take those of the same settings from it",
    )
    parser.add_argument(
        "--plots",
        metavar="DIR",
        type=Path,
        help=f"instead of the table, measure how {', '.join(FIGURES)} grow, and write PNGs and their data to DIR",
    )

    return parser


def _check(request: Request, settings: Settings) -> None:
    """Refuse what cannot be measured before a process is started for it."""
    sections(settings)
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no GPU that PyTorch can use; leave it out to use the CPU")

    if settings.data is not None and request.benchmark not in TAKE_DATA:
        raise ValueError(f"--data: has no effect on {request.benchmark}, only on {' and '.join(TAKE_DATA)}")
    if settings.data is not None and not Path(settings.data).is_dir():
        raise ValueError(f"--data: {settings.data} is no folder")

    if request.plots is None:
        return
    if request.system != DEFAULT_SYSTEM:
        raise ValueError(f"--plots: there are figures of {DEFAULT_SYSTEM} only; leave out --system")
    if request.benchmark not in FIGURES:
        raise ValueError(f"--plots: there is no figure of {request.benchmark}, only of {', '.join(FIGURES)}")
    without_effect = {"--json": request.as_json, "--only": request.only, "--keep": request.keep}
    for option, given in without_effect.items():
        if given:
            raise ValueError(f"--plots: writes its data as JSON beside the figures; leave out {option}")


def _measured(request: Request, benchmark: ModuleType, settings: Settings) -> tuple[list[Row], list[str]]:
    """The rows of the chosen cases that could be measured, and what was wrong with the others."""
    rows, failures = [], []
    kept = KeptRows(request.keep, settings)
    cases = chosen([labelled(request.system, case) for case in benchmark.cases(settings)], request.only)

    with tqdm(cases, unit="case", file=sys.stderr, disable=None) as progress:
        for case in progress:
            progress.set_postfix_str(case.name)
            row = kept.row(case.name)
            if row is not None:
                rows.append(row)
                continue

            try:
                rows.append(measure(case, settings))
            except ChildError as error:
                failures.append(f"{case.name}: {error}")
                continue
            kept.add(rows[-1], settings)
            progress.write(f"{case.name}: ours {rows[-1].ours_s:.3g} s", file=sys.stderr)

    return rows, failures


def chosen(cases: Sequence[Case], words: Sequence[str]) -> list[Case]:
    """The cases whose names contain all words; ValueError if there are none."""
    found = [case for case in cases if all(word in case.name for word in words)]
    if not found:
        names = "; ".join(case.name for case in cases)
        raise ValueError(f"--only: no case contains {' and '.join(words)}; there are: {names}")
    return found


def labelled(system: str, case: Case) -> Case:
    """The case with the system's name before its own, unless it is the default system."""
    if system == DEFAULT_SYSTEM or case.name.startswith(f"{system} "):
        return case
    return replace(case, name=f"{system} {case.name}")


def _print(benchmark: ModuleType, settings: Settings, rows: Sequence[Row]) -> None:
    print(machine(settings), render(rows), sep="\n\n")
    notes = benchmark.notes(settings, rows) if hasattr(benchmark, "notes") else []
    if notes:
        print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
