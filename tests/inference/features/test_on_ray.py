"""Actors of Ray Data give the rows of one process, to the bit; bad files and dead actors end nothing."""

import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest

from inference.features.engines import Engine
from inference.features.extract import ExtractionRequest
from inference.features.on_ray import _absolute, _rows
from inference.features.sources import Clip
from scripts.extract_features.__main__ import main
from tests.inference.features.engine_runs import (
    COMMAND,
    POISON,
    Runs,
    add_poison,
    failures_of,
    features_of,
    kill,
    trained,
)

ON_RAY = ("--engine", "ray", "--actors")
UNREADABLE = ("broken.mp4", "hanging.png")
"""Without `deadly.mp4`: actors are processes of Ray's, in which no test can change how a file is read."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    return trained(root, 13)


def test_actors_give_the_rows_of_one_process(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    videos = shutil.copytree(root / "videos", tmp_path / "videos")
    add_poison(videos, *UNREADABLE)
    with Runs(videos, checkpoint, tmp_path / "log") as runs:
        on_ray = runs.start(tmp_path / "ray", *ON_RAY, 2, module=COMMAND)
        assert runs.finish(tmp_path / "alone", module=COMMAND) == 1
        assert on_ray.wait(900) == 1, runs.output()
    assert features_of(tmp_path / "ray") == features_of(tmp_path / "alone")
    found = failures_of(tmp_path / "ray")
    assert found.keys() == set(UNREADABLE) and all(found[name].startswith(POISON[name]) for name in UNREADABLE)


def test_rows_hold_whole_batches_and_each_clip_once() -> None:
    clips = [Clip(f"/{number}.mp4", None, 2.5, number, 7) for number in range(1000)]
    for batch_size, actors in ((1, 1), (8, 4), (8, 1000), (3, 7), (2000, 1)):
        rows = _rows(clips, batch_size, actors)
        assert len({row["number"] for row in rows}) == len(rows) <= 1000
        listed = [json.loads(row["clips"]) for row in rows]
        assert [Clip(**fields) for part in listed for fields in part] == clips
        assert all(len(part) % batch_size == 0 for part in listed[:-1])


def test_actors_get_absolute_paths() -> None:
    request = ExtractionRequest(source=Path("a"), checkpoint="b", out=Path("c"), config=Path("d"), videos=Path("e"))
    found = _absolute(request)
    assert [found.source, found.checkpoint, found.out, found.config, found.videos] == [
        *(Path.cwd() / "a", str(Path.cwd() / "b")),
        *(Path.cwd() / "c", Path.cwd() / "d", Path.cwd() / "e"),
    ]
    at_hub = ExtractionRequest(source=Path("/a"), checkpoint="hf://me/model", out=Path("/c"))
    assert _absolute(at_hub) == at_hub


def test_what_is_missing_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(tmp_path), "--checkpoint", "none", "--out", str(tmp_path / "out"), "--engine", "ray"]
    for module in ("ray", "pandas", "pyarrow"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(SystemExit) as stop:
                main(words)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1
        assert f"--engine ray: {module} is not installed; run `pip install" in error


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "local", "stale_after": 5.0}, "--stale-after: has no effect on --engine local"),
        ({"name": "hosts", "actors": 2}, "--address and --actors: have no effect on --engine hosts"),
        ({"name": "local", "address": "auto"}, "--address and --actors: have no effect on --engine local"),
    ],
)
def test_settings_of_another_engine_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Engine(**settings)


def actors_of(driver: int) -> list[int]:
    """The processes of actors that a driver's Ray has started: they are below its own in the tree of processes."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                names[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])

    def is_below(pid: int) -> bool:
        while pid in parents:
            if pid == driver:
                return True
            pid = parents[pid]
        return False

    return [pid for pid, name in names.items() if name.startswith("ray::") and "Encoder" in name and is_below(pid)]


@pytest.mark.soak
def test_engines_that_are_killed_at_random_give_the_same_bits(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    """One process, two hosts, and four actors, each killed at random and started again, with bad files among the good.

    Takes some five minutes.
    """
    rng = random.Random(5)
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(300):
        shutil.copy(root / "videos" / f"{number % 13}.mp4", videos / f"{number:04d}.mp4")
    add_poison(videos, *UNREADABLE)
    undisturbed, alone, shared, on_ray = (tmp_path / name for name in ("undisturbed", "alone", "hosts", "ray"))
    slow = {"seconds_a_clip": 0.03}
    with Runs(videos, checkpoint, tmp_path / "log") as runs:
        assert runs.finish(undisturbed, module=COMMAND) == 1

        # One process: killed after a few more parts each time.
        for _ in range(3):
            process = runs.start(alone, **slow)
            runs.until_parts(alone, rng.randint(1, 6))
            kill(process)
        assert runs.finish(alone) == 1

        # Two hosts: now one is killed and started again, now the other, and at last both while nobody else is there.
        options = ("--engine", "hosts", "--stale-after", "3")
        hosts = [runs.start(shared, *options, **slow) for _ in range(2)]
        for turn in range(6):
            runs.until_parts(shared, rng.randint(1, 6))
            kill(hosts[turn % 2])
            if turn == 5:
                kill(hosts[0])
                hosts[0] = runs.start(shared, *options)
            hosts[turn % 2] = runs.start(shared, *options, **slow)
        assert [host.wait(900) for host in hosts] == [0, 0], runs.output()

        # Ray: actors are killed, then the driver, with which all of its processes go; then it is started again.
        driver = runs.start(on_ray, *ON_RAY, 4, module=COMMAND)
        runs.until_parts(on_ray, 1)
        actors = actors_of(driver.pid)
        assert actors
        for pid in rng.sample(actors, min(2, len(actors))):
            os.kill(pid, signal.SIGKILL)
        runs.until_parts(on_ray, 2)
        kill(driver)
        runs.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in actors))
        again = runs.start(on_ray, *ON_RAY, 4, module=COMMAND)
        runs.until(lambda: actors_of(again.pid) != [])
        runs.until_parts(on_ray, 1)
        for pid in actors_of(again.pid)[:1]:
            os.kill(pid, signal.SIGKILL)
        assert again.wait(900) == 1, runs.output()

    expected = features_of(undisturbed)
    for out in (alone, shared, on_ray):
        assert features_of(out) == expected, out
    assert failures_of(on_ray).keys() == set(UNREADABLE)
