import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import child
from benchmarks.measure import Call, Variant
from benchmarks.reducers import cost
from benchmarks.reducers.cost import (
    SETTINGS,
    VIDEOS,
    add_peaks,
    key_of,
    read_measured,
    times,
    variant_of,
    videos_of,
)
from benchmarks.reducers.schedules import priced
from benchmarks.settings import Settings
from configs.load import from_dict
from configs.schema import AggregationConfig, RetrievalConfig, TestaConfig, VideoConfig
from engine.checkpoint_folder import read_json, write_json

MODEL = TestaConfig(depth=2, width=96, heads=3, patch_size=8)
REDUCERS = {
    name: priced(name, MODEL, VideoConfig(num_frames=frames, image_size=32), AggregationConfig())
    for name, frames in (("whole", 64), ("part", 8))
}

CONFIG = from_dict(
    RetrievalConfig,
    {
        "model": {"text": {"depth": 1, "width": 32, "heads": 2, "intermediate": 32, "vocab_size": 100}},
        "data": {"root": "."},
        "optim": {"lr": 1e-5},
        "train": {"batch_size": 2, "max_epochs": 1},
    },
    "test",
)


def test_the_work_is_that_of_the_reducer() -> None:
    def seconds(name: str) -> float:
        variant = variant_of(REDUCERS[name], CONFIG)
        sent = Variant(**json.loads(json.dumps({"build": variant.build, "arguments": variant.arguments})))
        work = child.build(sent, SETTINGS)
        work()
        begun = time.process_time()
        work()
        return time.process_time() - begun

    assert seconds("part") < 0.5 * seconds("whole")


def test_schedules_take_turns_and_the_least_cpu_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide differences of the work show through whatever else the machine does."""
    monkeypatch.setattr(cost, "SETTINGS", replace(SETTINGS, rounds=2))
    encoders = [variant_of(matched, CONFIG).arguments for matched in REDUCERS.values()]
    whole, part = cost.seconds_of(encoders, cost.SETTINGS)
    assert 0 < part < 0.5 * whole


def test_what_is_there_is_kept_and_the_rest_held_against_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, part = REDUCERS.values()
    path = tmp_path / "measured.json"
    counts = []

    def seconds_of(encoders: list[dict], settings: Settings) -> list[float]:
        counts.append(len(encoders))
        return [2.0, 1.0][: len(encoders)]

    monkeypatch.setattr(cost, "seconds_of", seconds_of)
    assert times([whole], CONFIG, path) == {key_of(whole): {"seconds": 2.0}}
    write_json(path, {key_of(whole): {"seconds": 3.0, "peak_bytes": 7}})
    # The machine is 1.5 times as slow as now, when the first was measured.
    found = times([whole, part], CONFIG, path)
    assert found == {key_of(whole): {"seconds": 3.0, "peak_bytes": 7}, key_of(part): {"seconds": 1.5}}
    assert times([whole, part], CONFIG, path) == found == read_json(path) and counts == [1, 2]

    monkeypatch.setattr(cost, "take_turns", lambda variants, settings: [[Call(1.0, 5), Call(1.0, 6)]])
    add_peaks([whole, part], CONFIG, path)
    assert [own["peak_bytes"] for own in read_json(path).values()] == [7, 6]


def test_times_from_before_a_setting_was_there_count(tmp_path: Path) -> None:
    merging = AggregationConfig(reducer="geometry", frames_per_block=1)
    matched = priced("merging", MODEL, VideoConfig(num_frames=8, image_size=32), merging)
    assert any(word.startswith("aggregation.frames_per_block=") for word in matched.overrides)
    for defaults in ((), ("aggregation.train_keep=null", "aggregation.threshold=0.1")):
        path = tmp_path / "measured.json"
        write_json(path, {" ".join((*matched.overrides, *defaults)): {"seconds": 3.0}})
        assert read_measured(path)[key_of(matched)] == {"seconds": 3.0}

    other = " ".join((*matched.overrides, "aggregation.threshold=0.2"))
    write_json(tmp_path / "measured.json", {other: {"seconds": 3.0}})
    assert key_of(matched) not in read_measured(tmp_path / "measured.json")


def test_large_videos_are_measured_alone() -> None:
    assert [videos_of(32, 64), videos_of(32, 224), videos_of(96, 224)] == [VIDEOS, 2, 1]
