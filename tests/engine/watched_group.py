"""A run of torchrun over gloo under a watchdog, whose rank 1 is killed in the middle of its first start."""

import os
import signal
import sys
from pathlib import Path

import torch

from engine.distributed import all_reduce_sum, gather_objects, rank, start_distributed, stop_distributed
from engine.heartbeat import Heartbeat
from engine.watchdog import Watchdog

LAST_STEP, KILLED_AT = 5, 3


def main() -> None:
    # torchrun ends the others at once when one has failed; they shall have their say first.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    first_start = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    start_distributed()
    with (
        Heartbeat(Path(sys.argv[1]) / "heartbeats", rank()) as heartbeat,
        Watchdog(heartbeat, gather_objects(heartbeat.process), stall_timeout=30.0) as watchdog,
    ):
        for step in range(LAST_STEP + 1):
            heartbeat.beat(step, "training", [f"video_{rank()}_{step}.mp4"])
            if first_start and rank() == 1 and step == KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                all_reduce_sum(torch.ones(1))
            except RuntimeError:
                if not watchdog.explain():
                    raise
                sys.exit(1)
    stop_distributed()


if __name__ == "__main__":
    main()
