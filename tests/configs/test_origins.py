"""`--print` of an entry script: every setting with its value, and the file that it comes from."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from configs.load import dump, load, to_dict
from configs.origins import DEFAULT, Layer, checkpoint_layer, file_layers, flattened, origins
from configs.schema import RetrievalConfig

ROOT = Path(__file__).resolve().parents[2]
F96 = "configs/testa/retrieval/didemo_f96.yaml"
OVERRIDES = ["data.root=/data", "optim.lr=2e-5"]


def printed(*words: str) -> dict[str, tuple[Any, str]]:
    """Value and source by key, as `train_retrieval.py --print` prints them."""
    command = [sys.executable, "train_retrieval.py", "--print", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        setting, _, source = line.rpartition("  # ")
        key, _, value = setting.partition(": ")
        found[key] = (json.loads(value), source)
    return found


def test_a_run_prints_its_settings_and_the_file_of_each() -> None:
    found = printed("--config", F96, *OVERRIDES)
    config = load(RetrievalConfig, ROOT / F96, OVERRIDES)
    assert {key: value for key, (value, _) in found.items()} == flattened(to_dict(config))

    sources = {key: source for key, (_, source) in found.items()}
    assert sources["optim.lr"] == sources["data.root"] == "command line"
    assert sources["seed"] == DEFAULT
    # Wherever the line of a file says it, the source is that file.
    for key in ("video.num_frames", "aggregation.frames_per_block", "data.dataset", "train.batch_size"):
        text = (ROOT / sources[key]).read_text(encoding="utf-8")
        assert key.rpartition(".")[2] in text and sources[key].endswith(".yaml")
    assert len({sources[key] for key in ("video.num_frames", "data.dataset", "optim.lr", "seed")}) == 4


def test_an_evaluation_takes_model_and_input_from_the_checkpoint(tmp_path: Path) -> None:
    trained = load(RetrievalConfig, ROOT / F96, [*OVERRIDES, "model.depth=6"])
    dump(trained, tmp_path / "config.yaml")

    found = printed("--evaluate", "--config", "configs/testa/retrieval/didemo_f32.yaml", "data.root=/data",
                    f"checkpoint={tmp_path}")  # fmt: skip
    assert found["model.depth"] == (6, str(tmp_path / "config.yaml"))
    assert found["video.num_frames"] == (96, str(tmp_path / "config.yaml"))
    assert found["data.root"][1] == "command line" and found["optim.lr"][1] != str(tmp_path / "config.yaml")

    alone = printed("--evaluate", f"checkpoint={tmp_path}")
    assert alone["optim.lr"] == (2e-5, str(tmp_path / "config.yaml"))


def test_the_highest_layer_counts_and_a_value_that_was_dropped_is_a_default() -> None:
    layers = [Layer("base", {"a.b": 1, "a.c": 2, "d": 3}), Layer("file", {"a.b": 4})]
    settings = {"a": {"b": 4, "c": 0}, "d": 3, "e": None}
    assert origins(settings, layers) == {"a.b": "file", "a.c": DEFAULT, "d": "base", "e": DEFAULT}


def test_layers_of_a_file_begin_with_its_bases(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("a: {b: 1}\n")
    (tmp_path / "two.yaml").write_text("")
    (tmp_path / "run.yaml").write_text("base: [one.yaml, two.yaml]\nc: [1, 2]\nevaluate_with: [video]\n")
    assert file_layers(tmp_path / "run.yaml") == [
        Layer(str(tmp_path / "one.yaml"), {"a.b": 1}),
        Layer(str(tmp_path / "two.yaml"), {}),
        Layer(str(tmp_path / "run.yaml"), {"c": [1, 2]}),
    ]

    (tmp_path / "config.yaml").write_text("video: {num_frames: 8}\nmodel: {depth: 2}\nseed: 1\n")
    layer = checkpoint_layer(tmp_path, tmp_path / "run.yaml")
    assert layer is not None and layer.settings == {"model.depth": 2}
    assert checkpoint_layer(tmp_path / "no" / "where", None) is None
