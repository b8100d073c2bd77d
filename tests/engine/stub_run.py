"""A run of the stub as a process of its own, so that it can be killed: `python -m tests.engine.stub_run FOLDER ...`."""

import argparse
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from engine.command_line import exit_status
from engine.distributed import rank
from engine.run import run
from tests.engine.stub import StubTask, stub_config


class SlowStub(StubTask):
    """Takes its time, so that a signal finds it at work; a rank may kill itself once, before it leaves a mark."""

    seconds = 0.0
    kill: tuple[int, int] | None = None

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        time.sleep(self.seconds)
        mark = Path(f"{self.config.output_dir}.killed")
        if self.kill == (rank(), self.step) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(batch)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--kill", type=int, nargs=2, metavar=("RANK", "STEP"))
    parser.add_argument("--save-every", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    SlowStub.seconds, SlowStub.kill = arguments.seconds, arguments.kill and tuple(arguments.kill)
    config = stub_config(
        arguments.folder,
        train={"max_epochs": arguments.epochs, "save_every": arguments.save_every, "stall_timeout": 20.0},
    )
    with exit_status():
        run(config, SlowStub)


if __name__ == "__main__":
    main()
