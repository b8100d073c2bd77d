"""Runs of `scripts.extract_features` on any engine, as processes that a test may kill, and what they leave."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.features.folder import PARTS
from tests.engine.processes import environment
from tests.forked import Program
from tests.integration.runs import train
from tests.tiny_runs import write_data

HOST = "tests.inference.features.host"
COMMAND = "scripts.extract_features"
FEATURES = ("features/embeddings.npy", "features/index.jsonl", "failed.jsonl")
POISON = {
    "broken.mp4": "PyAV: ",
    "deadly.mp4": "a second worker process died while reading it",
    "hanging.png": "no frame of it was read within 1 seconds",
}
"""Files that cannot be read, and why."""


def trained(root: Path, videos: int) -> Path:
    """A folder of so many videos, and a checkpoint for them, which is returned."""
    write_data(root, [1] * videos)
    return train(root, root / "run", "retrieval", train={"max_epochs": 1, "batch_size": 4}) / "checkpoint_best"


def add_poison(videos: Path, *names: str) -> None:
    for name in names:
        if name == "hanging.png":
            os.mkfifo(videos / name)  # whoever opens it waits for ever
        elif name == "broken.mp4":
            (videos / name).write_bytes(b"no video")
        else:
            shutil.copy(videos / "0.mp4", videos / name)


class Runs:
    """Processes with one source and checkpoint; a context manager that leaves none behind."""

    def __init__(self, source: Path, checkpoint: Path, log: Path) -> None:
        self.source, self.checkpoint, self.log = source, checkpoint, log
        self.processes: list[Program] = []
        log.touch()

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def start(self, out: Path, *more: object, module: str = HOST, seconds_a_clip: float = 0.0) -> Program:
        words = [self.source, "--checkpoint", self.checkpoint, "--out", out, "--workers", 1, "--batch-size", 2]
        words += ["--sample-timeout", 1, "--json", *more]
        # Ray gives its workers the lowest priority, at which they would starve beside other tests.
        variables = environment(SECONDS_A_CLIP=str(seconds_a_clip), RAY_worker_niceness="0")
        self.processes.append(Program(["-m", module, *map(str, words)], variables, self.log))
        return self.processes[-1]

    def finish(self, out: Path, *more: object, module: str = HOST) -> int:
        """The exit status of a run that nobody disturbs."""
        return self.start(out, *more, module=module).wait(900)

    def until(self, condition: Callable[[], bool], timeout: float = 900.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.01)

    def until_parts(self, out: Path, more: int) -> None:
        """Wait until so many more parts of features are written, or all that was started has ended."""
        wanted = parts_of(out) + more
        self.until(lambda: parts_of(out) >= wanted or all(process.poll() is not None for process in self.processes))

    def output(self) -> str:
        return self.log.read_text(errors="replace")


def parts_of(out: Path) -> int:
    """How many parts of features are written by now."""
    return len(list((out / PARTS).glob("*.jsonl")))


def kill(process: Program) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(30)


def features_of(out: Path) -> dict[str, bytes]:
    """What a finished extraction holds, and nothing else is left over."""
    left = {path.name for path in out.iterdir()} - {".lock"}
    assert left == {"extraction.json", "failed.jsonl", "features"}, left
    return {name: (out / name).read_bytes() for name in FEATURES}


def failures_of(out: Path) -> dict[str, str]:
    """The reason for each file that could not be read, by name."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    return {Path(line["video"]).name: line["reason"] for line in lines}
