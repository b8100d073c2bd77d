"""Run a script in several processes on this machine, one a GPU: `python -m engine.launch --nproc_per_node=8 SCRIPT.py`.

It works as torchrun does, and takes its option of that name; but every process receives a signal only once, nothing is
printed besides their own output, and their exit status is passed on: 75 if all have saved.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence

import configs as configs  # a Python without our requirements fails here, with a clear error
from engine.children import Children
from engine.interruption import ENDED, SAVED

LOOK_EVERY = 0.05
GRACE = 30.0
"""Seconds that the other processes have to report and end, after one has failed and they were told to stop."""


def main(arguments: list[str] | None = None) -> int:
    """Start the processes, and return one exit status for all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nproc_per_node", "--nproc-per-node", type=int, required=True, metavar="N")
    parser.add_argument("script", help="a Python file; everything after it goes to it")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.nproc_per_node < 1:
        parser.error(f"--nproc_per_node: {options.nproc_per_node} is less than 1")

    with Children() as children:
        # Open until all have ended: a free port that is only looked up may be taken by the time it is needed.
        from torch.distributed import TCPStore

        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

        if children.received:
            return 128 + children.received[0]
        for rank in range(options.nproc_per_node):
            environment = environment_of(rank, options.nproc_per_node, store.port)
            children.start([sys.executable, "-u", options.script, *options.words], environment)
        return status_of(wait_for_all(children))


def environment_of(rank: int, world_size: int, port: int) -> dict[str, str]:
    """A process's environment: its rank, and the address of the others."""
    own = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": world_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        # The launcher has opened the store, so that no rank opens its own.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_MAX_RESTARTS": 0,
        "TORCHELASTIC_RESTART_COUNT": 0,
    }
    defaults = {"OMP_NUM_THREADS": "1"}  # the processes share the cores, also with their data workers
    return {**defaults, **os.environ, **{name: str(value) for name, value in own.items()}}


def wait_for_all(children: Children) -> list[int]:
    """The exit statuses; if one process fails, the others are told to stop and have `GRACE` seconds for that."""
    failed_at: float | None = None
    while None in (statuses := children.statuses()):
        if any(statuses) and failed_at is None and not children.received:
            failed_at = time.monotonic()
            for process in children.processes:
                process.terminate()
        if failed_at is not None and time.monotonic() - failed_at > GRACE:
            break  # leaving the context of `children` kills them
        time.sleep(LOOK_EVERY)
    return [-signal.SIGKILL if status is None else status for status in statuses]


def status_of(statuses: Sequence[int]) -> int:
    """One status for all processes: theirs if they agree, else 2 if one is a user's error, else 1."""
    plain = {ENDED if status == -signal.SIGINT else status for status in statuses}
    failed = plain - {0}
    for status in (2, ENDED, SAVED):
        if failed and (failed == {status} or (status == 2 and status in failed)):
            return status
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
