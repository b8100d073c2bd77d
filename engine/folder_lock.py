"""A lock on a folder, so that only one run writes to it at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_writer(folder: Path, wait: bool = False) -> Iterator[None]:
    """Make the folder and hold its lock until the end of the context.

    If another run holds it, `wait` for that run, or raise ValueError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(f"{folder}: another run is writing to it; wait until it ends") from None
        yield
