"""A folder that one run writes to at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_writer(folder: Path, wait: bool = False) -> Iterator[None]:
    """Make the folder and hold it; it is let go at the end, however that comes.

    If another run is at it, `wait` until that is done, or else ValueError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(f"{folder}: another run is writing to it; wait for it") from None
        yield
