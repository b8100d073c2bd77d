"""Check on a GPU what the tests can only hold on a CPU, and print one table.

    python -m tests.gpu.check
    python -m tests.gpu.check --only attention step --json
    python -m tests.gpu.check --device cpu

Each row is one check: what was measured, and the bound it is to keep. A check that lacks a package is skipped and names
it; one that fails, hangs or takes its process along is a failed row, with its traceback on stderr, and the others go
on. A goal of speed that is not reached is `missed`, which is no failure. Status 1 if any check failed.
"""

import argparse
import json
import platform
import time
from collections import Counter

import torch

from configs.model import ATTENTION_REDUCERS
from tests.gpu.checks.outcome import Row
from tests.gpu.checks.runner import Check, Job, run_checks
from tests.gpu.checks.sizes import SIZES

HERE = "tests.gpu.checks"
F96 = {"frames_per_block": 4, "patches_per_block": 8}
F96_OVERRIDES = tuple(f"aggregation.{name}={amount}" for name, amount in F96.items())
FILLED = {32: 32, 96: 12}
"""How many videos of how many frames fill the largest GPUs."""

CHECKS: dict[str, Check] = {
    "device": Check(f"{HERE}.formats:supported"),
    **{
        f"cpu/{attention} {reducer}": Check(f"{HERE}.parity:encoder", {"attention": attention, "reducer": reducer})
        for attention, reducers in ATTENTION_REDUCERS.items()
        for reducer in reducers
    },
    "cpu/text": Check(f"{HERE}.parity:text"),
    "cpu/step": Check(f"{HERE}.training:as_on_a_cpu"),
    "autocast/bf16": Check(f"{HERE}.formats:near_float32", {"precision": "bf16"}),
    "autocast/fp16": Check(f"{HERE}.formats:near_float32", {"precision": "fp16"}),
    "attention/fp32": Check(f"{HERE}.attention:with_bias", {"precision": "fp32"}),
    "attention/bf16": Check(f"{HERE}.attention:with_bias", {"precision": "bf16"}),
    "attention/fp16": Check(f"{HERE}.attention:with_bias", {"precision": "fp16"}),
    "step/bf16": Check(f"{HERE}.formats:steps", {"precision": "bf16"}),
    "step/fp16": Check(f"{HERE}.formats:steps", {"precision": "fp16"}),
    "step/without waiting": Check(f"{HERE}.training:without_waiting"),
    "step/without waiting, loop": Check(f"{HERE}.training_loop:without_waiting"),
    "step/the same twice": Check(f"{HERE}.training:the_same_twice"),
    "checkpointing/recompute": Check(f"{HERE}.training:checkpointing", {"how": "recompute"}),
    "checkpointing/offload": Check(f"{HERE}.training:checkpointing", {"how": "offload"}),
    "memory/96 frames": Check(f"{HERE}.training:memory", {"frames": 96, "batch": 4, "leaving": F96}, needs_gpu=True),
    "memory/as planned": Check(f"{HERE}.planned:memory", {"frames": 32, "batch": 8}),
    "memory/as planned, recompute": Check(
        f"{HERE}.planned:memory", {"frames": 96, "batch": 4, "checkpointing": "recompute"}
    ),
    "collectives": Check(f"{HERE}.collectives:over_processes"),
    "compile/plain": Check(f"{HERE}.compiled:against_eager"),
    # Tracing alone: what a size makes of the graph is settled before there are kernels.
    "compile/sizes": Check(f"{HERE}.compiled:against_eager", {"shapes": 4, "backend": "aot_eager"}),
    "compile/bias": Check(f"{HERE}.compiled:against_eager", {"proportional": True}),
    "compile/recompute": Check(f"{HERE}.compiled:against_eager", {"checkpointing": "recompute"}),
    "speed/encoder, 32 frames": Check(
        f"{HERE}.speed:encoder", {"frames": 32, "batch": FILLED[32], "compiled": True}, needs_gpu=True, goal=True
    ),
    "speed/encoder, 96 frames": Check(
        f"{HERE}.speed:encoder",
        {"frames": 96, "batch": FILLED[96], "merging": F96_OVERRIDES},
        needs_gpu=True,
        goal=True,
    ),
    "speed/step": Check(f"{HERE}.speed:step", {"batch": 8}, needs_gpu=True, goal=True),
}
"""By name. Modules are named, not imported, so that a missing package takes no more than its own checks."""


def main() -> None:
    """Parse the command line, run the checks, print the table."""
    groups = ", ".join(dict.fromkeys(name.partition("/")[0] for name in CHECKS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"checks whose names begin so; groups are {groups}")
    parser.add_argument(
        "--size", choices=tuple(SIZES), help="of the models: full (the base model's width, default on a GPU) or tiny"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects instead of the table")
    arguments = parser.parse_args()
    try:
        jobs = chosen(arguments.only, arguments.device, arguments.size)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    start, rows = time.monotonic(), []
    width = max(len(job.name) for job in jobs)
    if not arguments.json:
        print(f"Python {platform.python_version()}, torch {torch.__version__}, {arguments.device}\n", flush=True)
    for row in run_checks(jobs):
        rows.append(row)
        if not arguments.json:
            print(line(row, width), flush=True)
    statuses = Counter(row.status for row in rows)
    if arguments.json:
        print(json.dumps([row.as_json() for row in rows], indent=1))
    else:
        counts = ", ".join(f"{count} {status}" for status, count in statuses.items())
        print(f"\n{counts} in {time.monotonic() - start:.0f} s")
    parser.exit(1 if statuses["failed"] else 0)


def chosen(only: list[str] | None, device: str, size: str | None) -> list[Job]:
    """The jobs that the command line asks for; ValueError for a name of none, or where there is no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no GPU that PyTorch can use; --device cpu tries them out")
    for beginning in only or ():
        if not any(name.startswith(beginning) for name in CHECKS):
            raise ValueError(f"--only: no check's name begins with {beginning!r}; there are {', '.join(CHECKS)}")
    names = [name for name in CHECKS if only is None or name.startswith(tuple(only))]
    return [Job(name, CHECKS[name], device, size or ("full" if device == "cuda" else "tiny")) for name in names]


def line(row: Row, width: int) -> str:
    """One line of the table: name, status, seconds, what was measured with its bounds, a note."""
    readings = ", ".join(
        f"{reading.what} {reading.value:.3g} ({reading.sense} {reading.bound:g})" for reading in row.readings
    )
    said = "; ".join(part for part in (readings, row.note) if part)
    return f"{row.name:{width}}  {row.status:7}  {row.seconds:6.1f} s  {said}".rstrip()


if __name__ == "__main__":
    main()
