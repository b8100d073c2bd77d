"""Processes of a run as torchrun or srun would start them, which a test may kill."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.forked import Program
from tests.ports import free_port


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


class Ranks:
    """The processes of one start; a context manager that leaves none behind."""

    def __init__(self, world_size: int, *command: str, log: Path) -> None:
        port = str(free_port())
        self.log = log
        self.processes = []
        log.write_bytes(b"")
        for rank in range(world_size):
            group = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            given = environment(**(group | address if world_size > 1 else {}))
            self.processes.append(Program(list(command), given, log))

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def send(self, number: signal.Signals, ranks: list[int]) -> None:
        for rank in ranks:
            self.processes[rank].send_signal(number)

    def wait(self, timeout: float = 150.0) -> list[int]:
        """The exit statuses; those who are still there after `timeout` seconds fail the test."""
        deadline = time.monotonic() + timeout
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]

    def until(self, condition: Callable[[], bool], timeout: float = 150.0) -> bool:
        """Wait until `condition` holds; False if all processes ended before."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s:\n{self.output()}"
            if all(process.poll() is not None for process in self.processes):
                return condition()
            time.sleep(0.01)
        return True

    def all_are_training(self, folder: Path) -> bool:
        """Whether every process of this start has come to its first step, by the heartbeats of a run's folder."""
        beats = [folder / "heartbeats" / f"rank_{rank:05d}.json" for rank in range(len(self.processes))]
        now = [json.loads(beat.read_text()) if beat.exists() else {} for beat in beats]
        return all(
            beat.get("pid") == process.pid and beat["doing"] == "training"
            for beat, process in zip(now, self.processes, strict=True)
        )

    def output(self) -> str:
        return self.log.read_text(errors="replace")


def lines_of(path: Path) -> int:
    """Whole lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0
