"""Heartbeat files: what they say, to whom, and what happens where they cannot."""

import errno
import json
import logging
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from engine import heartbeat as module
from engine.heartbeat import LENGTH, Beat, Heartbeat, Process, encode, heartbeat_file, read_beat, this_process


def test_a_file_says_what_its_rank_does(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "heartbeats", 3)
    path = tmp_path / "heartbeats" / "rank_00003.json"
    assert read_beat(heartbeat.folder, 3) == Beat(this_process(3))
    heartbeat.beat(57, "training", [f"{number}.mp4" for number in range(10)])
    assert path.stat().st_size == LENGTH
    values = json.loads(path.read_text())
    assert (values["rank"], values["pid"], values["step"], values["doing"]) == (3, os.getpid(), 57, "training")
    assert (values["samples"], values["more"]) == ([f"{number}.mp4" for number in range(8)], 2)
    heartbeat.stay_alive({1: "is gone"})
    beat = read_beat(heartbeat.folder, 3)
    assert beat is not None and beat == heartbeat.latest and (beat.alive, beat.lost) == (1, {1: "is gone"})
    assert beat.place() == "at step 57, training on " + ", ".join(values["samples"]) + " and 2 more"
    heartbeat.beat(58, "loading", ["a.mp4"])
    assert heartbeat.latest.place() == "at step 58, loading after a.mp4"


@pytest.mark.parametrize("name", ["a" * 4000, "\N{GRINNING FACE}" * 300, "\udcff\n\"'" * 100])
def test_any_names_errors_and_losses_fit(name: str, tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "heartbeats", 0)
    heartbeat.beat(2**40, "training", [name] * 40)
    heartbeat.stay_alive({rank: "has not been heard of for 40 s" for rank in range(10**4, 10**4 + 300)})
    heartbeat.end(name)
    beat = read_beat(heartbeat.folder, 0)
    assert beat is not None and heartbeat_file(heartbeat.folder, 0).stat().st_size == LENGTH
    assert beat.error == name[:240] and len(beat.lost) == 8
    assert len(beat.samples) + beat.more == 40 and set(beat.samples) <= {name[-120:]}


def test_how_a_rank_ended_stays_in_its_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError), Heartbeat(tmp_path / "heartbeats", 0) as heartbeat:
        heartbeat.beat(4, "training", ["a.mp4"])
        raise ValueError("the reason")
    heartbeat.end(None)
    heartbeat.beat(5, "loading")
    heartbeat.stay_alive({})
    beat = read_beat(heartbeat.folder, 0)
    assert beat is not None
    assert (beat.step, beat.doing, beat.samples, beat.error) == (4, "ended", ("a.mp4",), "the reason")


def test_leaving_by_exit_or_at_the_end_is_no_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), Heartbeat(tmp_path / "heartbeats", 0) as heartbeat:
        raise SystemExit(75)
    assert (heartbeat.latest.doing, heartbeat.latest.error) == ("ended", None)
    with pytest.raises(RuntimeError), Heartbeat(tmp_path / "heartbeats", 0) as heartbeat:
        heartbeat.stay_alive({1: "is gone"})
        raise RuntimeError("a collective broke")
    assert (heartbeat.latest.doing, heartbeat.latest.error) == ("ended", None)
    with pytest.raises(KeyboardInterrupt), Heartbeat(tmp_path / "heartbeats", 0) as heartbeat:
        raise KeyboardInterrupt
    assert heartbeat.latest.error == "KeyboardInterrupt()"


def test_missing_torn_and_foreign_files_say_nothing(tmp_path: Path) -> None:
    whole = encode(Beat(this_process(0), 7, "training", ("a.mp4",)))
    values = json.loads(whole)
    contents = [None, b"", b"\0" * LENGTH, whole[:90], b"[1]", b"7", json.dumps({**values, "new": 1}).encode(), b"\xff"]
    for content in contents:
        if content is not None:
            heartbeat_file(tmp_path, 0).write_bytes(content)
        assert read_beat(tmp_path, 0) is None, content
    heartbeat_file(tmp_path, 0).write_bytes(whole)
    assert read_beat(tmp_path, 0) is not None


def test_a_process_of_an_earlier_start_does_not_write_into_the_new_file(tmp_path: Path) -> None:
    earlier = Heartbeat(tmp_path / "heartbeats", 0)
    later = Heartbeat(tmp_path / "heartbeats", 0)
    later.beat(3, "training")
    earlier.beat(9, "training")
    assert read_beat(later.folder, 0) == later.latest


def test_a_process_is_told_from_a_later_one_of_its_number_and_from_one_that_ended() -> None:
    mine = this_process(0)
    assert mine.is_running() and not replace(mine, started=mine.started - 1).is_running()
    child = subprocess.Popen(["sleep", "60"])
    process = Process(1, mine.host, child.pid, module._state_and_start(child.pid)[1], mine.namespace)
    assert mine.sees(process) and process.is_running()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has waited for it
    assert not process.is_running()
    child.wait()
    assert not process.is_running()


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"namespace": "pid:[1]"}])
def test_a_process_of_another_host_or_container_is_not_looked_up(elsewhere: dict[str, str]) -> None:
    mine = this_process(0)
    assert not mine.sees(replace(mine, **elsewhere)) and not replace(mine, namespace="").sees(
        replace(mine, namespace="")
    )


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"output_dir: cannot write .*file/heartbeats/rank_00000.json"):
        Heartbeat(tmp_path / "file" / "heartbeats", 0)


def test_a_full_disk_is_logged_once_and_training_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat, errors = Heartbeat(tmp_path / "heartbeats", 0), []
    monkeypatch.setattr(logging.getLogger("engine"), "error", lambda *words: errors.append(words))

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        for step in range(3):
            heartbeat.beat(step, "training")
    assert [str(words[-1]).count("No space left") for words in errors] == [1]
    heartbeat.beat(4, "training")
    beat = read_beat(heartbeat.folder, 0)
    assert beat is not None and beat.step == 4
