import json
import time
from pathlib import Path

import pytest

from benchmarks import child
from benchmarks.measure import Call, Variant
from benchmarks.reducers import cost
from benchmarks.reducers.cost import SETTINGS, VIDEOS, measure, variant_of
from benchmarks.reducers.schedules import priced
from benchmarks.settings import Settings
from configs.load import from_dict
from configs.schema import AggregationConfig, RetrievalConfig, TestaConfig, VideoConfig
from engine.checkpoint_folder import read_json

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


def test_time_is_the_median_of_a_video_and_memory_the_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [[Call(8.0, 5), Call(1.0, 7), Call(2.0, 6)], [Call(4.0, 1), Call(4.0, 2), Call(4.0, 3)]]

    def take_turns(variants: list[Variant], settings: Settings) -> list[list[Call]]:
        frames = [variant.arguments["config"]["video"]["num_frames"] for variant in variants]
        assert frames == [64, 8] and settings == SETTINGS
        return calls

    monkeypatch.setattr(cost, "take_turns", take_turns)
    measured = measure(REDUCERS, CONFIG, tmp_path / "measured.json")
    assert measured == {
        "whole": {"seconds": 2.0 / VIDEOS, "peak_bytes": 7},
        "part": {"seconds": 4.0 / VIDEOS, "peak_bytes": 3},
    }
    assert read_json(tmp_path / "measured.json") == measured
