"""One rank under a watchdog, as a process of its own: `python -m tests.engine.watched_rank SETTINGS`, a JSON object.

Prints its `Process`, reads those of all ranks, counts steps and meets the fault it was given, or waits where a
collective would. Seconds are shorter than in a real run.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from engine import watchdog
from engine.heartbeat import Heartbeat, Process
from engine.watchdog import Watchdog

watchdog.LOOK_EVERY, watchdog.SHARE_EVERY, watchdog.SILENCE, watchdog.GRACE, watchdog.LATE = 0.1, 0.2, 3.0, 0.5, 1.5
watchdog.APART = 1.5  # on a busy machine


def wait_in_a_collective(seconds: float = 60.0) -> None:
    time.sleep(seconds)


def meet_fault(fault: str, heartbeat: Heartbeat, step: int) -> None:
    """What happens in the last step. After "waits" and "evaluates" the rank ends as it should."""
    if fault == "waits for ever":
        wait_in_a_collective()
    elif fault == "waits":
        wait_in_a_collective(1.3)
    elif fault == "evaluates":
        heartbeat.beat(step, "evaluating")
        time.sleep(1.6)
    elif fault == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "is stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        assert fault == "fails"
        heartbeat.end("the reason")
        wait_in_a_collective()  # leaving the process group may hang


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[1])
    socket.gethostname = lambda: settings["host"]
    rank, last_step, fault = settings["rank"], settings["last_step"], settings["fault"]
    with Heartbeat(Path(settings["folder"]) / "heartbeats", rank) as heartbeat:
        print(json.dumps(vars(heartbeat.process)), flush=True)
        processes = [Process(**values) for values in json.loads(sys.stdin.readline())]
        with Watchdog(heartbeat, processes, settings["stall_timeout"]):
            for step in range(last_step + 1):
                names = [f"{name}_{rank}_{step}.mp4" for name in "abcdefghij"]
                heartbeat.beat(step, "loading", [f"before_{name}" for name in names])
                if fault == "loads for ever" and step == last_step:
                    wait_in_a_collective()
                heartbeat.beat(step, "training", names)
            meet_fault(fault, heartbeat, last_step)


if __name__ == "__main__":
    main()
