from pathlib import Path
from threading import Event, Thread

import pytest

from engine.folder_lock import only_writer


def test_a_second_writer_is_refused_or_waits(tmp_path: Path) -> None:
    folder, is_in = tmp_path / "new" / "out", Event()

    def write_too() -> None:
        with only_writer(folder, wait=True):
            is_in.set()

    second = Thread(target=write_too)
    with only_writer(folder):
        with (
            pytest.raises(ValueError, match="out: another run is writing to it; wait until it ends"),
            only_writer(folder),
        ):
            pass
        second.start()
        assert not is_in.wait(0.2)
    second.join(timeout=20)
    assert is_in.is_set()
    with only_writer(folder):  # it was let go again
        pass
