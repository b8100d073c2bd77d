"""What a run logs: lines, a progress bar, metrics.jsonl, tensorboard, wandb, and the list of unreadable files.

Only rank 0 prints and writes.
"""

import json
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from configs.load import to_dict
from configs.schema import RunConfig
from engine.distributed import is_main

logger = logging.getLogger("engine")

METRICS = "metrics.jsonl"
QUARANTINE = "quarantine.jsonl"
SKIPPED_STEPS = "skipped_steps.jsonl"
HEADLINE = 3
"""How many metrics of a result a line of the log shows."""


class _AboveTheBar(logging.Handler):
    """Prints lines above the progress bar, so that they do not tear it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def start_logging() -> None:
    """Print the project's own log lines, with the time, on rank 0."""
    for name in ("engine", "tasks", "models", "datasets"):
        part = logging.getLogger(name)
        if not part.handlers:
            handler = _AboveTheBar()
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            part.addHandler(handler)
            part.propagate = False
        part.setLevel(logging.INFO if is_main() else logging.ERROR)


class RunLog:
    """The log files in a run's folder, continued from optimizer step `step`; lines of later steps are dropped."""

    def __init__(self, folder: Path, config: RunConfig, step: int, total_steps: int) -> None:
        self.folder, self.total_steps = folder, total_steps
        self.evaluated: set[int] = set()
        self.quarantined: set[str] = set()
        self.tensorboard: SummaryWriter | None = None
        self.wandb: Any = None
        # disable=None shows no bar where the output is not a terminal; lines are printed instead.
        self.bar = tqdm(total=total_steps, initial=step, unit="step", disable=None if is_main() else True)
        if not is_main():
            return

        if config.wandb_project is not None:
            self.wandb = _start_wandb(config.wandb_project, folder, config)
        lines = _keep_lines(folder / METRICS, lambda line: line["step"] <= step)
        self.evaluated = {line["step"] for line in lines if line["kind"] == "evaluation"}
        _keep_lines(folder / SKIPPED_STEPS, lambda line: line["step"] <= step)
        self.quarantined = {line["video"] for line in _keep_lines(folder / QUARANTINE, lambda line: True)}
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def training(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Record the losses, rates and speed of a step."""
        self._record("train", step, epoch, values)
        losses = " ".join(f"{name} {value:.4f}" for name, value in values.items() if name.startswith("loss"))
        shown = f"{losses} lr {values['lr']:.2e} {values['samples_per_second']:.1f} samples/s"
        if self.bar.disable:
            left = tqdm.format_interval((self.total_steps - step) * values["seconds_per_step"])
            logger.info("step %d/%d %s, %s left", step, self.total_steps, shown, left)
        else:
            self.bar.set_postfix_str(shown)

    def skipped(self, step: int, values: dict[str, float], samples: list[str]) -> None:
        """Record a step that was skipped because its loss or gradient was not finite, with its batch's samples."""
        if not is_main():
            return
        _append(self.folder / SKIPPED_STEPS, {"step": step, **_finite_or_null(values), "samples": samples})
        listing = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.warning("step %d is not finite and skipped: %s; its samples are in %s", step, listing, SKIPPED_STEPS)

    def evaluation(self, step: int, epoch: float, metrics: dict[str, float], best_metric: str | None) -> None:
        """Record an evaluation's metrics; the printed line shows the best metric and two more."""
        self._record("evaluation", step, epoch, metrics)
        logger.info("step %d: %s", step, headline(metrics, best_metric))

    def quarantine(self, failed: list[dict[str, Any]]) -> None:
        """Log each file that could not be read, once a run."""
        for entry in failed:
            if not is_main() or entry["video"] in self.quarantined:
                continue
            self.quarantined.add(entry["video"])
            logger.warning("cannot read %s: %s", entry["video"], entry["reason"])
            _append(self.folder / QUARANTINE, entry)

    def close(self) -> None:
        """Close the bar and write out what is buffered."""
        self.bar.close()
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.wandb is not None:
            self.wandb.finish()

    def _record(self, kind: str, step: int, epoch: float, values: dict[str, float]) -> None:
        if not is_main():
            return
        line = {"kind": kind, "step": step, "epoch": round(epoch, 6), **_finite_or_null(values)}
        _append(self.folder / METRICS, line)
        scalars = {f"{kind}/{name}": value for name, value in values.items()}
        if self.tensorboard is not None:
            for name, value in scalars.items():
                self.tensorboard.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(scalars, step=step)


def headline(metrics: dict[str, float], best_metric: str | None) -> str:
    """Three metrics for people to read: the one that chooses the best weights, then the first others."""
    first = [best_metric] if best_metric in metrics else []
    names = list(dict.fromkeys([*first, *metrics]))
    return " ".join(f"{name} {metrics[name]:.4g}" for name in names[:HEADLINE])


def _start_wandb(project: str, folder: Path, config: RunConfig) -> Any:
    try:
        import wandb
    except ImportError:
        raise ValueError("wandb_project: wandb is not installed; run `pip install wandb` or leave it out") from None
    return wandb.init(project=project, name=folder.name, dir=str(folder), config=to_dict(config))


def _finite_or_null(values: dict[str, float]) -> dict[str, float | None]:
    """Values for JSON, which has no infinity and no NaN; a skipped step may have either."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _keep_lines(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Rewrite a JSONL file with its wanted lines only; drops a last line that a killed run left half written."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break

    lines = [line for line in lines if wanted(line)]
    if path.exists():
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        temporary.replace(path)
    return lines
