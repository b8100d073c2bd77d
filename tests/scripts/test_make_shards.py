"""Packing pairs into shards: going on after a stop, and what is missing or has changed."""

import json
import multiprocessing
import os
import signal
import tarfile
import time
from pathlib import Path

import pytest

from datasets.sources import open_source
from scripts import make_shards
from scripts.index_pairs import main as index_pairs


def write_pairs(folder: Path, count: int = 12, size: int = 400_000) -> Path:
    """A manifest of files of random bytes, two and a bit to a megabyte."""
    folder.mkdir()
    rows = []
    for number in range(count):
        (folder / f"{number}.mp4").write_bytes(bytes([number]) * size)
        rows.append({"video": f"{number}.mp4", "caption": [f"caption {number}", "ü"]})
    rows[1] |= {"start": 1.5}
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pairs.jsonl"


def run(source: Path, out: Path, *more: str) -> int:
    with pytest.raises(SystemExit) as ended:
        make_shards.main([str(source), "--media", str(source.parent), "--out", str(out), "--shard-mb", "1", *more])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_row_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_pairs(tmp_path / "data")
    with source.open("a") as file:
        file.write('{"video": "0.mp4", "caption": "a \\ud83d dog"}\n')
    assert run(source, tmp_path / "out") == 2
    assert f"make_shards: error: {source}:13: caption 'a \\ud83d dog' is not valid" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=f"error: {source}:13: caption"):
        index_pairs([str(source)])
    assert not list(tmp_path.rglob("*.tar"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tar", ".json")}


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_pairs(tmp_path / "data")
    assert run(source, tmp_path / "whole", "--workers", "2") == 0
    said = capsys.readouterr().out
    assert f"{tmp_path}/whole: 6 of 6 shards, 12 samples, 4.8 MB; 0 files missing; 0 rows without words" in said
    stopped, kills = tmp_path / "stopped", 0
    for shards_there in (0, 1, 3):
        process = multiprocessing.get_context("fork").Process(target=_slowly, args=(source, stopped))
        process.start()
        while process.is_alive() and len(list(stopped.glob("*.tar"))) <= shards_there:
            time.sleep(0.005)
        assert process.pid is not None and process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        assert not (stopped / "index.json").exists()
    before = {path.name: path.stat().st_mtime_ns for path in stopped.glob("*.tar")}
    assert kills == 3 and 4 <= len(before) < 6
    assert run(source, stopped, "--workers", "0") == 0
    assert contents(stopped) == contents(tmp_path / "whole")
    assert all((stopped / name).stat().st_mtime_ns == time_ for name, time_ in before.items())
    assert not list(stopped.glob("*.partial"))


def _slowly(source: Path, out: Path) -> None:
    """The same run, with time between samples in which it can be killed."""
    add = make_shards._add

    def slow_add(*arguments: object) -> None:
        time.sleep(0.02)
        add(*arguments)  # type: ignore[arg-type]

    make_shards._add = slow_add  # type: ignore[assignment]
    run(source, out, "--workers", "0")


def test_a_shard_holds_its_rows_and_says_who_they_were(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "data", count=3)
    assert run(source, tmp_path / "out", "--workers", "0") == 0
    with tarfile.open(tmp_path / "out" / "pairs-000000.tar") as tar:
        members = tar.getmembers()
        text = tar.extractfile("000000001.json")
        assert text is not None
        said = json.load(text)
    assert [member.name for member in members] == [
        f"00000000{row}.{suffix}" for row in (0, 1) for suffix in ("mp4", "json")
    ]
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {
        (0, 0, 0, "", 0o644)
    }
    assert said == {"video": "1.mp4", "caption": ["caption 1", "ü"], "start": 1.5}
    assert json.loads((tmp_path / "out" / "index.json").read_text())["shardlist"][1] == {
        "url": "pairs-000001.tar",
        "nsamples": 1,
        "filesize": 409_600,
    }


def test_samples_can_be_called_like_their_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_pairs(tmp_path / "data", count=3)
    assert run(source, tmp_path / "out", "--workers", "0", "--keep-names") == 0
    with tarfile.open(tmp_path / "out" / "pairs-000000.tar") as tar:
        assert tar.getnames() == ["0.mp4", "0.json", "1.mp4", "1.json"]
    table = open_source(tmp_path / "out" / "index.json", tmp_path)
    assert list(table.paths) == ["0.mp4", "1.mp4", "2.mp4"] and table.texts[2] == "caption 1"

    assert run(source, tmp_path / "out", "--workers", "0") == 2
    assert "was made with keep_names True, not False" in capsys.readouterr().err
    rows = [{"video": "1.mp4", "caption": "a"}, {"video": "1.mp4", "caption": "b", "start": 1.0}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(source, tmp_path / "other", "--keep-names") == 2
    assert "1.mp4 stands in several rows" in capsys.readouterr().err


def test_what_cannot_be_taken_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_pairs(tmp_path / "data")
    (source.parent / "3.mp4").unlink()
    (source.parent / "4.mp4").write_bytes(b"")
    with source.open("a") as file:
        file.write('{"video": "pairs.jsonl", "caption": "no video"}\n')
    assert run(source, tmp_path / "out", "--workers", "0") == 1
    rows = [json.loads(line) for line in (tmp_path / "out" / "missing.jsonl").read_text().splitlines()]
    assert [(row["row"], row["reason"]) for row in rows] == [
        (3, "no such file"),
        (4, "the file is empty"),
        (12, ".jsonl is not the suffix of a video or an image"),
    ]
    assert rows[0]["video"] == f"{source.parent}/3.mp4" and "3 files missing (see " in capsys.readouterr().out
    table = open_source(tmp_path / "out" / "index.json", tmp_path)
    assert [Path(table.path(video)).stem for video in range(10)] == [
        f"{row:09}" for row in range(12) if row not in (3, 4)
    ]


def test_another_source_or_size_into_the_same_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_pairs(tmp_path / "data"), tmp_path / "out"
    assert run(source, out, "--workers", "0") == 0
    before = contents(out)
    assert run(source, out, "--shard-mb", "2") == 2
    assert f"{out}: was made with shard_mb 1, not 2; name another --out" in capsys.readouterr().err
    source.write_text(source.read_text().replace("caption 3", "caption three"))
    assert run(source, out) == 2
    assert "was made with sha256" in capsys.readouterr().err
    assert contents(out) == before
    assert run(out / "index.json", tmp_path / "again") == 2 and "is an index of shards" in capsys.readouterr().err
    (out / "plan.json").unlink()
    assert run(source, out) == 2 and "holds shards but no plan.json" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    empty = tmp_path / "empty" / source.name
    empty.write_text(source.read_text())
    assert run(empty, tmp_path / "none") == 2 and "no file can be taken, the first" in capsys.readouterr().err


def test_a_file_that_changes_after_the_plan_costs_its_shard_and_the_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_pairs(tmp_path / "data"), tmp_path / "out"
    whole = (source.parent / "5.mp4").read_bytes()
    measure = make_shards._measure

    def measure_and_change(*arguments: object) -> object:
        measured = measure(*arguments)  # type: ignore[arg-type]
        (source.parent / "5.mp4").write_bytes(b"shorter")
        return measured

    monkeypatch.setattr(make_shards, "_measure", measure_and_change)
    assert run(source, out, "--workers", "0") == 1
    said = capsys.readouterr()
    assert f"{out}/pairs-000002.tar: {source.parent}/5.mp4: has changed since the shards were planned" in said.err
    assert "5 of 6 shards" in said.out and "no index until" in said.out and not (out / "index.json").exists()
    (source.parent / "5.mp4").write_bytes(whole)
    assert run(source, out, "--workers", "0") == 0 and (out / "index.json").is_file()


def test_a_folder_of_shards_gets_its_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_pairs(tmp_path / "data"), tmp_path / "out"
    assert run(source, out, "--workers", "0") == 0
    written = (out / "index.json").read_bytes()
    (out / "index.json").unlink()
    capsys.readouterr()
    index_pairs([str(out)])
    assert (out / "index.json").read_bytes() == written
    assert f"{out}/index.json: 24 pairs of 12 videos or images" in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit, match=r"^error: .*none: no .tar file in it"):
        index_pairs([str(tmp_path / "none")])
