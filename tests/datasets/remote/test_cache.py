"""The cache's bound, what leaves first, what never leaves, and what a killed process leaves behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from datasets.remote import cache as caching
from datasets.remote.cache import Cache, Held
from datasets.remote.streams import RemoteError

ROOT = Path(__file__).resolve().parents[3]


def put(cache: Cache, key: str, size: int) -> None:
    with cache.incoming(key, size) as new:
        assert not isinstance(new, Held)
        new.write(bytes(size))
        new.finish().release()


def keys(folder: Path) -> set[str]:
    return {path.name for path in (folder / "files").glob("*/*")}


def used(folder: Path) -> int:
    return int((folder / "used").read_text())


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path, 1000)


def test_the_least_recently_used_leave_and_the_bound_holds(cache: Cache) -> None:
    for number in range(4):
        put(cache, f"{number}", 240)
        time.sleep(0.005)
    first = cache.find("0")
    assert first is not None
    first.release()
    put(cache, "4", 240)
    assert keys(cache.folder) == {"0", "3", "4"} and used(cache.folder) == 720


def test_what_is_in_use_stays(cache: Cache) -> None:
    put(cache, "old", 500)
    time.sleep(0.005)
    put(cache, "new", 400)
    held = cache.find("old")
    assert held is not None
    put(cache, "next", 300)
    assert keys(cache.folder) == {"old", "next"}
    held.release()


def test_a_file_larger_than_the_bound_is_refused_before_and_while_it_comes(cache: Cache) -> None:
    refused = r"it has .*, more than the whole cache of .*"
    with pytest.raises(RemoteError, match=refused) as error, cache.incoming("a", 1001):
        pass
    assert "data.remote.cache_gib" in error.value.remedy
    with pytest.raises(RemoteError, match=refused), cache.incoming("a", None) as new:
        assert not isinstance(new, Held)
        for _ in range(3):
            new.write(bytes(400))
    assert keys(cache.folder) == set() and used(cache.folder) == 0
    assert list((cache.folder / "incoming").iterdir()) == []


def test_where_all_is_in_use_a_new_file_waits(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache, "old", 800)
    held = cache.find("old")
    assert held is not None
    monkeypatch.setattr(caching, "ROOM_SECONDS", 0.1)
    with pytest.raises(RemoteError, match="all .* of the cache are in use"):
        put(cache, "new", 300)

    monkeypatch.setattr(caching, "ROOM_SECONDS", 10.0)
    threading.Timer(0.2, held.release).start()
    put(cache, "new", 300)
    assert keys(cache.folder) == {"new"} and used(cache.folder) == 300


def test_a_second_reader_waits_for_the_first_and_takes_its_file(cache: Cache) -> None:
    begun, found = threading.Event(), []

    def read() -> None:
        begun.wait()
        with cache.incoming("a", 10) as new:
            found.append(new)
            assert isinstance(new, Held)
            new.release()

    thread = threading.Thread(target=read)
    thread.start()
    with cache.incoming("a", 10) as new:
        assert not isinstance(new, Held)
        begun.set()
        time.sleep(0.2)
        assert not found
        new.write(bytes(10))
        new.finish().release()
    thread.join()
    assert len(found) == 1 and used(cache.folder) == 10


WRITES = """
import sys, time
from pathlib import Path
from datasets.remote.cache import Cache
with Cache(Path(sys.argv[1]), 1000).incoming("half", 900) as new:
    new.write(bytes(450)); print("writing", flush=True); time.sleep(60)
"""


def test_what_a_killed_process_was_fetching_makes_room(cache: Cache) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITES, cache.folder], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    assert used(cache.folder) == 900
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    put(cache, "new", 800)
    assert keys(cache.folder) == {"new"} and used(cache.folder) == 800
    assert list((cache.folder / "incoming").iterdir()) == []


def test_a_damaged_count_is_counted_again(cache: Cache) -> None:
    put(cache, "a", 300)
    (cache.folder / "used").write_text("")
    put(cache, "b", 100)
    assert used(cache.folder) == 400


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RemoteError, match="no cache can be kept in .*file") as error:
        Cache(tmp_path / "file", 1000)
    assert "data.remote.cache_dir" in error.value.remedy
