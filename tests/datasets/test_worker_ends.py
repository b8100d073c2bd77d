"""Workers end, whatever has become of one of them."""

import signal
from pathlib import Path

from tests.datasets.test_watching import dataset, images, kill, loader, processes


def test_workers_end_though_one_died_with_the_lock_of_the_end(tmp_path: Path) -> None:
    """As one does that is killed while it looks whether it is to end."""
    train = loader(dataset(images(tmp_path, 16)))
    next(train.epoch(0))
    iterator = train._loader._iterator
    iterator._workers_done_event._cond._lock.acquire()
    kill(processes(train), signal.SIGKILL)
    for worker in iterator._workers:
        worker.join()
    del iterator
    train._loader._end_workers()
    assert train._loader._iterator is None
