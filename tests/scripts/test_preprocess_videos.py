import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from datasets import decode
from datasets.annotations.layout import VideoFolder
from scripts.preprocess_videos.__main__ import main
from scripts.preprocess_videos.ledger import FAILURES, PROCESSED, SETTINGS
from tests.videos import frame_numbers, grey_steps, write_video

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    write_video(folder / "a.avi", grey_steps(10), codec="mpeg4")
    write_video(folder / "2019" / "b.clip.MKV", grey_steps(10))
    # QuerYD's downloader leaves no suffix.
    write_video(folder / "c.mp4", grey_steps(10)).rename(folder / "video-c")
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("left alone")
    return folder


def run(*arguments: str | Path) -> int:
    """The exit status."""
    try:
        main(["--jobs", "0", *map(str, arguments)])
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
    return 0


def videos(folder: Path) -> dict[str, int]:
    """The videos of a folder and when they were written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_video_is_processed_once(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "out"
    assert run(source, out, "--fps", "5") == 1
    assert "3 written" in (text := capsys.readouterr().out) and "1 failed" in text and "1 other files" in text
    first = videos(out)
    assert first.keys() == {"a.mp4", "2019/b.clip.mp4", "video-c.mp4"}
    for name in first:
        clip = decode.read_video(str(out / name), 32, lambda length: np.arange(length))
        assert frame_numbers(clip) == [0, 2, 4, 6, 8]
    assert {row["source"] for row in rows(out / PROCESSED)} == {"a.avi", "2019/b.clip.MKV", "video-c"}
    (failure,) = rows(out / FAILURES)
    assert failure == {"source": "broken.mp4", "reason": "Invalid data found when processing input"}
    assert json.loads((out / SETTINGS).read_text())["settings"]["fps"] == 5
    assert not list(out.rglob(".partial"))

    # The failure is tried again, nothing else is touched.
    assert run(source, out, "--fps", "5") == 1
    assert "0 written" in (text := capsys.readouterr().out) and "3 were done" in text
    assert videos(out) == first and len(rows(out / FAILURES)) == 1
    (source / "broken.mp4").unlink()
    assert run(source, out, "--fps", "5") == 0
    assert not (out / FAILURES).exists()


def test_changed_sources_are_made_again_and_changed_settings_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(source, out, "--fps", "5")
    first = videos(out)
    write_video(source / "a.avi", grey_steps(20), codec="mpeg4")
    (out / "2019" / "b.clip.mp4").write_bytes(b"cut")
    run(source, out, "--fps", "5")
    second = videos(out)
    assert {name for name in first if first[name] != second[name]} == {"a.mp4", "2019/b.clip.mp4"}
    for name, length in (("a.mp4", 10), ("2019/b.clip.mp4", 5)):
        assert len(decode.read_video(str(out / name), 32, lambda length: np.arange(length))) == length

    capsys.readouterr()
    assert run(source, out, "--fps", "5", "--seconds", "1") == 2
    assert "was made with seconds None instead of 1.0" in capsys.readouterr().err
    assert videos(out) == second
    # What cannot be made of the new source is not left as it was made of the old one.
    (source / "a.avi").write_bytes(b"no video any more")
    assert run(source, out, "--fps", "5") == 1
    assert videos(out).keys() == {"2019/b.clip.mp4", "video-c.mp4"}


def test_videos_that_differ_by_their_suffix_keep_it_and_are_found_by_either_name(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    write_video(source / "lone.mov", grey_steps(4)).rename(source / "lone.")
    run(source, out, "--fps", "5")
    write_video(source / "a.mp4", grey_steps(20))
    assert run(source, out, "--fps", "5") == 2
    assert "a.mp4: was made of a.avi, which has a namesake now and would become a.avi.mp4" in capsys.readouterr().err
    (out / "a.mp4").unlink()
    run(source, out, "--fps", "5")
    assert videos(out).keys() == {"a.avi.mp4", "a.mp4.mp4", "lone.mp4", "2019/b.clip.mp4", "video-c.mp4"}
    folder = VideoFolder(out)
    found = {name: folder.path(name) for name in ("a.avi", "a.mp4", "lone.", "lone", "b.clip", "b.clip.MKV", "video-c")}
    assert {name: str(Path(path).relative_to(out)) for name, path in found.items()} == {
        "a.avi": "a.avi.mp4",
        "a.mp4": "a.mp4.mp4",
        "lone.": "lone.mp4",
        "lone": "lone.mp4",
        "b.clip": "2019/b.clip.mp4",
        "b.clip.MKV": "2019/b.clip.mp4",
        "video-c": "video-c.mp4",
    }


def test_presets_are_changed_by_options(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "a", "--preset", "didemo")
    run(source, tmp_path / "b", "--preset", "didemo", "--seconds", "7")
    settings = [json.loads((tmp_path / name / SETTINGS).read_text())["settings"] for name in "ab"]
    assert settings[0] == {
        "codec": "libx264", "crf": 23, "fps": 30, "short_side": 224, "seconds": 30, "upscale": False
    }  # fmt: skip
    assert settings[1] == settings[0] | {"seconds": 7}


def test_dry_run_writes_nothing(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(source, tmp_path / "out", "--fps", "5", "--dry-run") == 0
    text = capsys.readouterr().out
    assert "write 2019/b.clip.MKV -> 2019/b.clip.mp4\n" in text and "4 to write, 0 done, 1 other files" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{raw}", "{out}"], "give --preset"),
        (["{raw}", "{out}", "--fps", "0"], "--fps 0: must be more than 0"),
        (["{raw}", "{out}", "--short-side", "225"], "must be even"),
        (["{raw}", "{out}", "--fps", "5", "--upscale"], "no effect without --short-side"),
        (["{raw}/none", "{out}", "--fps", "5"], "no such folder"),
        (["{raw}/empty", "{out}", "--fps", "5"], "no video in it"),
        (["{raw}", "{raw}/small", "--fps", "5"], "lies within"),
        (["{raw}", "{other}", "--fps", "5"], "holds files, but no preprocessing.json"),
    ],
)
def test_wrong_commands(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (source / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.mp4").write_text("years of work")
    places = {"raw": source, "out": tmp_path / "out", "other": tmp_path / "other"}
    assert run(*(argument.format(**places) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert (tmp_path / "other" / "thesis.mp4").read_text() == "years of work"


def test_a_pipe_is_not_waited_for(source: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "stuck.mp4")
    assert run(source, tmp_path / "out", "--fps", "5", "--timeout", "1", "--jobs", "2") == 1
    assert {"source": "stuck.mp4", "reason": "not a file"} in rows(tmp_path / "out" / FAILURES)
    assert len(videos(tmp_path / "out")) == 3


def test_a_killed_run_leaves_no_half_file_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "raw", tmp_path / "out"
    noise = np.random.default_rng(0).integers(0, 255, (40, 96, 96, 3), dtype=np.uint8)
    first = write_video(source / "0.mp4", noise)
    for number in range(1, 12):
        shutil.copy(first, source / f"{number}.mp4")
    command = [sys.executable, "-m", "scripts.preprocess_videos", source, out, "--fps", "10", "--jobs", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not (out / PROCESSED).exists() or len(rows(out / PROCESSED)) < 3):
        time.sleep(0.01)
    # Another one has to wait.
    assert run(source, out, "--fps", "10") == 2
    assert "another run is writing to it" in capsys.readouterr().err
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = videos(out)
    done = {name: changed for name, changed in done.items() if ".partial" not in name}
    assert 3 <= len(done) < 12
    for name in done:
        assert len(decode.read_video(str(out / name), 32, lambda length: np.arange(length))) == 40
    # What a kill in the middle of a line would leave.
    with (out / PROCESSED).open("a") as file:
        file.write('{"source": "11.mp')
    assert run(source, out, "--fps", "10") == 0
    assert f"{12 - len(done)} written" in capsys.readouterr().out
    assert {name: videos(out)[name] for name in done} == done
    assert len(videos(out)) == 12
    assert run(source, out, "--fps", "10", "--dry-run") == 0
    assert "0 to write, 12 done" in capsys.readouterr().out


def test_files_that_break_readers(real_data: Path, tmp_path: Path) -> None:
    assert run(real_data / "clips" / "hard", tmp_path / "out", "--preset", "activitynet") == 1
    failed = {row["source"] for row in rows(tmp_path / "out" / FAILURES)}
    assert failed == {"empty.mp4", "not_a_video.mp4", "truncated.mp4"}
    done = rows(tmp_path / "out" / PROCESSED)
    assert len(done) == 12 - len(failed)
    for row in done:
        # 6 a second; short sides of 224, or less where they were less.
        assert abs(row["frames"] - max(6 * row["seconds"], 1)) <= 0.51, row
        assert min(row["width"], row["height"]) in (224, 128, 50), row
    assert {row["source"] for row in done if row["damaged"]} == {"corrupted.mp4"}
