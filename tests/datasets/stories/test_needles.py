"""Needles: unique among all hours, nearly matched by many scenes, seen when it is said, the same for the same seed."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decord import VideoReader

from datasets.stories.needle_pictures import render_timeline
from datasets.stories.needle_set import MINUTE, NeedleSet, make_video, write_annotations
from datasets.stories.needles import (
    BEFORE,
    BRIEF,
    Item,
    Scene,
    Sight,
    draw_hours,
    draw_minutes,
    look_alike,
    sentence,
    view_of,
)
from scripts.make_needle_videos import main

SMALL = NeedleSet(hours=3, look_alikes=20, seconds=300, minutes=4, test=1, families=2)
OPTIONS = "--hours 3 --look-alikes 20 --seconds 300 --minutes 4 --test 1 --families 2 --workers 1".split()


def facts(sight: Sight) -> tuple[str, ...]:
    return (*vars(sight.first).values(), *vars(sight.second).values(), sight.relation, sight.background)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_needle_is_seen_once_and_nearly_seen_often() -> None:
    hours = draw_hours(np.random.default_rng(0), num_hours=5, num_needles=4, num_look_alikes=40, seconds=600)
    needles = [needle for hour in hours for needle in hour.needles]
    sights = Counter(scene.sight for hour in hours for scene in hour.scenes)
    assert len(needles) == 20
    assert all(sights[needle.sight] == 1 for needle in needles)
    assert {needle.seconds for needle in needles} == {1, 2, 3}

    # Every hour is full, and what is beside needles is as brief.
    brief = 0
    for hour in hours:
        assert [scene.start for scene in hour.scenes] == [0, *(scene.end for scene in hour.scenes[:-1])]
        assert hour.scenes[-1].end == 600
        brief += sum(scene.seconds <= BRIEF[1] for scene in hour.scenes)
    assert brief == 5 * 44

    # Scenes that differ in one fact: about as many for each needle as there are look-alikes.
    alike = []
    for needle in needles:
        swapped = replace(needle.sight, first=needle.sight.second, second=needle.sight.first)
        near = [sight for sight in sights.elements() if sum(map(str.__ne__, facts(sight), facts(needle.sight))) == 1]
        alike.append(len(near) + sights[swapped])
    assert np.mean(alike) >= 9


def test_one_after_the_other_takes_two_seconds() -> None:
    rng = np.random.default_rng(0)
    for hour in draw_hours(rng, num_hours=4, num_needles=4, num_look_alikes=100, seconds=600):
        assert all(scene.seconds > 1 for scene in hour.scenes if scene.sight.relation == BEFORE)


def test_look_alikes_differ_in_one_fact() -> None:
    rng = np.random.default_rng(0)
    sight = Sight(Item("red", "circle"), Item("blue", "star"), "above", "wavy")
    assert sentence(sight) == "a red circle above a blue star over a wavy background"
    differences = Counter()
    for _ in range(500):
        other = look_alike(rng, sight, seconds=2)
        assert other.first.colour != other.second.colour and other.first.shape != other.second.shape
        differences[sum(map(str.__ne__, facts(other), facts(sight)))] += 1
    # Four facts change where the two items change places.
    assert differences.keys() == {1, 4}


def test_minutes_hide_the_needles() -> None:
    rng = np.random.default_rng(0)
    hidden = {scene.sight for minute in draw_minutes(rng, 3, 2, set(), MINUTE) for scene in minute}
    minutes = draw_minutes(np.random.default_rng(0), 30, 2, hidden, MINUTE)
    assert not hidden & {scene.sight for minute in minutes for scene in minute}
    assert all(sum(scene.seconds for scene in minute) == MINUTE for minute in minutes)


def test_a_view_shows_what_is_told() -> None:
    rng = np.random.default_rng(0)
    sight = Sight(Item("red", "circle"), Item("blue", "star"), BEFORE, "wavy")
    for start, seconds in ((0, 1), (0, 12), (10, 2), (30, 3), (40, 9), (57, 3), (59, 1)):
        scene = Scene(sight, start, seconds)
        turn = start + seconds // 2
        for _ in range(30):
            first, last = view_of(rng, scene, window=4, seconds=MINUTE)
            assert 0 <= first and last == first + 4 <= MINUTE
            if seconds <= 3:
                assert first <= start and scene.end <= last
            else:
                assert first <= turn - 1 and turn + 1 <= last


def test_pictures_change_where_scenes_do() -> None:
    before = Sight(Item("red", "circle"), Item("blue", "star"), BEFORE, "plain")
    beside = replace(before, relation="left of")
    above = replace(before, relation="above")
    scenes = (Scene(before, 0, 3), Scene(beside, 3, 2), Scene(above, 5, 1))
    frames = render_timeline(scenes, 32, np.random.default_rng(0)).astype(float)
    assert frames.shape == (6, 32, 32, 3)
    changed = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)) > 0
    assert changed.tolist() == [True, False, True, False, True]

    def reddest(frame: np.ndarray) -> tuple[float, float]:
        """The middle of what is much more red than blue."""
        found = np.argwhere(frame[..., 0] - frame[..., 2] > 100)
        row, column = found.mean(axis=0)
        return float(row), float(column)

    assert reddest(frames[0]) == pytest.approx((15.5, 15.5), abs=2.5)
    assert not (frames[1][..., 0] - frames[1][..., 2] > 100).any()
    assert reddest(frames[3]) == pytest.approx((15.5, 7.5), abs=2.5)
    assert reddest(frames[5]) == pytest.approx((7.5, 15.5), abs=2.5)


def test_the_seed_fixes_every_file_to_the_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        main([str(tmp_path / name), *OPTIONS])
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 3 + 4 + 4 + 1
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    # Another seed gives others; a set that is there is left alone, and not taken for another.
    main([str(tmp_path / "one"), *OPTIONS])
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "one"), *OPTIONS, "--seed", "1"])
    write_annotations(tmp_path, replace(SMALL, seed=1))
    assert (tmp_path / "needles.jsonl").read_bytes() != (tmp_path / "one" / "needles.jsonl").read_bytes()


def test_files_show_each_needle_when_it_is_said(tmp_path: Path) -> None:
    jobs = write_annotations(tmp_path, SMALL)
    hour = jobs[0]
    hour.path.parent.mkdir(parents=True)
    make_video(hour)
    reader = VideoReader(str(hour.path), num_threads=1)
    assert len(reader) == SMALL.seconds
    assert reader.get_avg_fps() == pytest.approx(1)

    drawn = render_timeline(hour.scenes, SMALL.size, np.random.default_rng(hour.rng_key)).astype(float)
    own = [row for row in rows(tmp_path / "needles.jsonl") if row["video"] == "hours/hour_00.mp4"]
    assert len(own) == SMALL.needles
    for row in own:
        (scene,) = (scene for scene in hour.scenes if scene.start == row["start"])
        assert row == {**row, "caption": f"{sentence(scene.sight)}.", "end": scene.end}
        shown = reader.get_batch(range(scene.start, scene.end)).asnumpy().astype(float)
        assert np.abs(shown - drawn[scene.start : scene.end]).mean() < 12


def test_impossible_sets_are_refused() -> None:
    for change, message in (
        ({"size": 48}, "--size 48: must be a multiple of 32"),
        ({"window": 1}, "--window 1: must be at least 2"),
        ({"test": 1200}, "--test 1200: leaves none of 1200 minutes"),
        ({"seconds": 300}, "--seconds 300: 4 needles and their look-alikes take 325"),
    ):
        with pytest.raises(ValueError, match=message):
            NeedleSet(**change)
