"""All checks by name, and how one is shown. Modules are named, not imported: a missing package costs its checks alone.

`pytest -m gpu` runs them; tests/gpu/conftest.py prints the table.
"""

from configs.models.testa import ATTENTION_REDUCERS
from tests.gpu.checks.outcome import Row
from tests.gpu.checks.runner import Check, Job, run_checks

HERE = "tests.gpu.checks"
F96 = {"frames_per_block": 4, "patches_per_block": 8}
F96_OVERRIDES = tuple(f"aggregation.{name}={amount}" for name, amount in F96.items())
SYSTEMS = ("umt", "tvts", "stoa")
"""Those besides TESTA, whose own checks are all that name no system."""
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
    **{
        f"ragged/{precision}": Check(f"{HERE}.ragged:packed", {"precision": precision})
        for precision in ("fp32", "bf16", "fp16")
    },
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
    # Tracing alone shows how many graphs the sizes need, before any kernel is built.
    "compile/sizes": Check(f"{HERE}.compiled:against_eager", {"shapes": 4, "backend": "aot_eager"}),
    "compile/bias": Check(f"{HERE}.compiled:against_eager", {"proportional": True}),
    "compile/recompute": Check(f"{HERE}.compiled:against_eager", {"checkpointing": "recompute"}),
    **{f"{system}/as on a CPU": Check(f"{HERE}.systems:as_on_a_cpu", {"system": system}) for system in SYSTEMS},
    **{
        f"{system}/{precision}": Check(f"{HERE}.systems:near_float32", {"system": system, "precision": precision})
        for system in SYSTEMS
        for precision in ("bf16", "fp16")
    },
    **{f"{system}/fused": Check(f"{HERE}.systems:fused", {"system": system}) for system in SYSTEMS},
    **{
        f"{system}/memory as planned": Check(f"{HERE}.systems:memory", {"system": system, "batch": 8})
        for system in SYSTEMS
    },
    # STOA-VLP compiles nothing.
    **{f"compile/{system}": Check(f"{HERE}.systems:compiled", {"system": system}) for system in ("umt", "tvts")},
    **{
        f"features/{precision}": Check(f"{HERE}.features:neighbours", {"precision": precision})
        for precision in ("fp32", "bf16", "fp16")
    },
    "speed/encoder, 32 frames": Check(
        f"{HERE}.speed:encoder", {"frames": 32, "batch": FILLED[32], "compiled": True}, needs_gpu=True, goal=True
    ),
    "speed/encoder, 96 frames": Check(
        f"{HERE}.speed:encoder",
        {"frames": 96, "batch": FILLED[96], "merging": F96_OVERRIDES},
        needs_gpu=True,
        goal=True,
    ),
    "speed/an hour": Check(f"{HERE}.speed:hour", {"frames": 3600}, needs_gpu=True, goal=True),
    "speed/step": Check(f"{HERE}.speed:step", {"batch": 8}, needs_gpu=True, goal=True),
}


def job(name: str, device: str) -> Job:
    """The check `name` on a device: models of full width on a GPU, tiny ones on a CPU."""
    return Job(name, CHECKS[name], device, "full" if device == "cuda" else "tiny")


def line(row: Row, width: int) -> str:
    """One line of the table: name, status, seconds, what was measured with its bounds, a note."""
    return f"{row.name:{width}}  {row.status:7}  {row.seconds:6.1f} s  {measured(row)}".rstrip()


def measured(row: Row) -> str:
    """The readings of a row with their bounds, and its note."""
    readings = ", ".join(
        f"{reading.what} {reading.value:.3g} ({reading.sense} {reading.bound:g})" for reading in row.readings
    )
    return "; ".join(part for part in (readings, row.note) if part)


class Rows:
    """The rows of the chosen checks in the order of their tests; a check runs when its row is asked for."""

    def __init__(self, names: list[str], device: str, finished: list[Row]) -> None:
        self._rows = run_checks(job(name, device) for name in names)
        self._finished = finished

    def row(self, name: str) -> Row:
        """The row of a check that is asked for in its turn."""
        row = next(self._rows)
        assert row.name == name, f"the check {name} was asked for out of turn: {row.name} comes first"
        self._finished.append(row)
        return row

    def close(self) -> None:
        """End the process that runs the checks."""
        self._rows.close()
