"""Indices on disk: built once, where there is room, and built again when they are stale or broken."""

import fcntl
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from datasets import index
from datasets.annotations.source_rows import SourceRow
from datasets.sources import open_source

ROWS = 200_000


def write_table(path: Path, count: int = 3, word: str = "caption") -> Path:
    path.write_text("".join(f"{word} {number}\t{number}.jpg\n" for number in range(count)))
    return path


def refuse(path: Path, file: BinaryIO) -> Iterator[SourceRow]:
    pytest.fail(f"{path} is read again")
    yield SourceRow("", ())


def test_the_second_time_the_file_is_not_read(tmp_path: Path) -> None:
    path = write_table(tmp_path / "pairs.tsv")
    first = open_source(path, tmp_path)
    again = index.open_table(path, refuse, tmp_path)
    assert list(again.texts) == list(first.texts) == ["caption 0", "caption 1", "caption 2"]
    assert first.folder == tmp_path / "pairs.tsv.index" / "table"
    # Where the videos are is no part of it.
    assert index.open_table(path, refuse, tmp_path / "other").path(1) == f"{tmp_path}/other/1.jpg"


def test_a_changed_file_is_indexed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_table(tmp_path / "pairs.tsv", word="before")
    before = open_source(path, tmp_path)
    status = path.stat()
    write_table(path, word="behind")  # as long as before
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert open_source(path, tmp_path).texts[2] == "behind 2"
    assert "another state of the file; indexing it again" in caplog.text
    assert before.texts[2] == "before 2"  # what a running job has open stays
    assert sorted(entry.name for entry in (tmp_path / "pairs.tsv.index").iterdir()) == ["lock", "table"]


@pytest.mark.parametrize(
    "damage",
    [
        "text_bytes.bin gone",
        "text_video.bin shorter",
        "meta.json shorter",
        "meta.json garbage",
        "text_ends.bin garbage",
    ],
)
def test_a_damaged_index_is_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    path = write_table(tmp_path / "pairs.tsv")
    table = open_source(path, tmp_path)
    assert table.folder is not None
    name, what = damage.split()
    data = (table.folder / name).read_bytes()
    (table.folder / name).unlink()
    if what != "gone":
        (table.folder / name).write_bytes(data[:-8] if what == "shorter" else b"\x01" * len(data))
    assert list(open_source(path, tmp_path).texts) == ["caption 0", "caption 1", "caption 2"]
    assert "indexing it again" in caplog.text and str(path) in caplog.text


def test_where_nothing_can_be_written_the_cache_folder_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths = [write_table(tmp_path / folder / "pairs.tsv", word=folder) for folder in _folders(tmp_path, "one", "two")]
    for path in paths:
        path.with_name("pairs.tsv.index").write_text("in the way of the folder")
    tables = [open_source(path, tmp_path) for path in paths]
    assert [table.texts[0] for table in tables] == ["one 0", "two 0"]
    assert all(table.folder is not None and tmp_path / "cache" in table.folder.parents for table in tables)
    assert index.open_table(paths[0], refuse, tmp_path).texts[0] == "one 0"
    (tmp_path / "blocked").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    with pytest.raises(ValueError, match="no index can be written to .*pairs.tsv.index or .*; set XDG_CACHE_HOME"):
        open_source(paths[0], tmp_path)


def _folders(root: Path, *names: str) -> tuple[str, ...]:
    for name in names:
        (root / name).mkdir()
    return names


def slow_rows(path: Path, file: BinaryIO) -> Iterator[SourceRow]:
    """Leaves a trace of each build, and takes long enough that all who come meanwhile have to wait."""
    (path.parent / f"built-by-{os.getpid()}").touch()
    for line in file:
        yield SourceRow("v.mp4", (line.decode().strip(),))
    time.sleep(1.0)


def _open_at_once(path: Path, start: "multiprocessing.synchronize.Event", results: "multiprocessing.Queue") -> None:
    start.wait()
    table = index.open_table(path, slow_rows, path.parent)
    results.put((len(table), table.texts[len(table) - 1]))


def test_of_several_processes_one_builds_and_the_others_wait(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    processes = [context.Process(target=_open_at_once, args=(path, start, results)) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [(1000, "line 999")] * 3
    assert len(list(tmp_path.glob("built-by-*"))) == 1


def test_where_locks_do_nothing_an_index_is_built_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(file: BinaryIO, how: int) -> None:
        raise OSError("Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert len(open_source(write_table(tmp_path / "pairs.tsv"), tmp_path)) == 3
    assert "cannot be locked" in caplog.text


def test_nothing_is_left_of_a_build_that_fails_and_only_of_a_recent_one_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("a caption\timage.jpg\nno file\n")
    folder = tmp_path / "pairs.tsv.index"
    with pytest.raises(ValueError, match=r"pairs.tsv:2: 1 fields, not 2"):
        open_source(path, tmp_path)
    assert [entry.name for entry in folder.iterdir()] == ["lock"]
    mine = f"building-{os.uname().nodename}-{os.getpid()}"
    for name, age in (("building-old", index.ABANDONED + 60), ("building-now", 0), (mine, 0)):
        (folder / name).mkdir()
        os.utime(folder / name, (folder.stat().st_atime, folder.stat().st_mtime - age))
    open_source(write_table(path), tmp_path)
    assert sorted(entry.name for entry in folder.iterdir()) == ["building-now", "lock", "table"]


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    def rows(path: Path, file: BinaryIO) -> Iterator[SourceRow]:
        yield SourceRow("a.mp4", ("a",))
        path.write_text("grown")

    (tmp_path / "pairs.txt").write_text("")
    with pytest.raises(ValueError, match="pairs.txt: changed while it was read"):
        index.open_table(tmp_path / "pairs.txt", rows, tmp_path)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, parse: object, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index, "_write_columns", full)
    with pytest.raises(ValueError, match="index cannot be written to .*No space left on device.*make room"):
        open_source(write_table(tmp_path / "pairs.tsv"), tmp_path)


def test_rows_without_words_are_counted_and_a_file_without_others_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "some.tsv").write_text("a dog\t0.jpg\n \t1.jpg\n...\t2.jpg\na cat\t3.jpg\n")
    table = open_source(tmp_path / "some.tsv", tmp_path)
    assert list(table.texts) == ["a dog", "a cat"] and list(table.paths) == ["0.jpg", "3.jpg"]
    assert table.left_out == 2 and "2 rows left out" in caplog.text
    (tmp_path / "none.tsv").write_text("...\t0.jpg\n")
    with pytest.raises(ValueError, match=r"none.tsv: no pair in it \(1 without words\)"):
        open_source(tmp_path / "none.tsv", tmp_path)


def test_hundreds_of_thousands_of_rows_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is where it was, on both sides of the borders of pieces, and no piece is kept in memory."""
    path = tmp_path / "pairs.json"
    with path.open("w") as file:
        file.write("[")
        for number in range(ROWS):
            row = {"path": f"{number % 1000:03}/{number}.mp4", "caption": f"caption {number} " + "ü" * (number % 7)}
            file.write(("," if number else "") + json.dumps(row, ensure_ascii=number % 2 == 0))
        file.write("]")
    held: list[int] = []
    write = index._Columns.write
    monkeypatch.setattr(index._Columns, "write", lambda columns: held.append(len(columns.paths)) or write(columns))
    table = open_source(path, tmp_path)
    assert held == [index.ROWS_AT_ONCE] * 3 + [ROWS % index.ROWS_AT_ONCE]
    assert (len(table), table.num_videos, table.left_out) == (ROWS, ROWS, 0)
    assert np.array_equal(table.text_video, np.arange(ROWS)) and np.isnan(table.columns["spans"]).all()
    for number in (0, 1, index.ROWS_AT_ONCE - 1, index.ROWS_AT_ONCE, 2 * index.ROWS_AT_ONCE, 123_457, ROWS - 1):
        assert table.path(number) == f"{tmp_path}/{number % 1000:03}/{number}.mp4"
        assert table.texts[number] == f"caption {number} " + "ü" * (number % 7)
