"""Layers and errors of the configuration loader; error texts are compared whole."""

from pathlib import Path
from typing import Any

import pytest

from configs.load import load
from configs.schema import (
    AggregationConfig,
    DataConfig,
    ObjectiveConfig,
    OptimConfig,
    PretrainConfig,
    RetrievalConfig,
    TrainConfig,
    VideoConfig,
)

MINIMAL = """
data: {root: /data}
optim: {lr: 1e-5}
train: {batch_size: 8, max_epochs: 2}
"""


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path, *overrides: str, config_class: type = RetrievalConfig) -> str:
    """The text of the error that loading `path` must raise, the folder left out; always one line."""
    with pytest.raises(ValueError) as caught:
        load(config_class, path, list(overrides))
    text = str(caught.value).replace(f"{path.parent}/", "")
    assert "\n" not in text
    return text


def test_a_file_fills_sections_and_leaves_the_rest_at_its_defaults(tmp_path: Path) -> None:
    config = load(RetrievalConfig, write(tmp_path, MINIMAL + "video: {num_frames: 4}\nseed: 3"), [])
    assert config == RetrievalConfig(
        data=DataConfig(root="/data"),
        optim=OptimConfig(lr=0.00001),
        train=TrainConfig(batch_size=8, max_epochs=2),
        video=VideoConfig(num_frames=4),
        seed=3,
    )


def test_bases_are_merged_in_order_under_the_file_and_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    write(tmp_path, MINIMAL + "video: {num_frames: 4, image_size: 32}\nseed: 1", "bases/first.yaml")
    write(tmp_path, "video: {num_frames: 5}\nseed: 2\ntrain: {max_epochs: 9}", "bases/second.yaml")
    path = write(tmp_path, "base: [bases/first.yaml, bases/second.yaml]\nseed: 3")
    config = load(RetrievalConfig, path, ["train.workers=0", "optim.betas=[0.8, 0.9]", "output_dir=runs/lr=3"])
    assert (config.seed, config.video.num_frames, config.video.image_size, config.output_dir) == (3, 5, 32, "runs/lr=3")
    assert config.train == TrainConfig(batch_size=8, max_epochs=9, workers=0)
    assert config.optim == OptimConfig(lr=1e-5, betas=(0.8, 0.9))
    swapped = write(tmp_path, "base: [bases/second.yaml, bases/first.yaml]")
    assert load(RetrievalConfig, swapped, []).video.num_frames == 4


def test_a_section_in_part_keeps_the_rest_of_its_task_default(tmp_path: Path) -> None:
    config = load(PretrainConfig, write(tmp_path, MINIMAL + "objective: {alpha: 0.2}"), [])
    expected = ObjectiveConfig(losses=("vtc", "vtm", "cap"), queue_size=57600, alpha_ramp_epochs=2.0, alpha=0.2)
    assert config.objective == expected


@pytest.mark.parametrize(
    ("override", "unknown", "meant"),
    [
        ("sed=1", "sed", "seed"),
        ("otpim.lr=1", "otpim", "optim"),
        ("optim.weight_decy=1", "optim.weight_decy", "optim.weight_decay"),
        ("model.text.widht=1", "model.text.widht", "model.text.width"),
        ("train.lr=1", "train.lr", "optim.lr"),
        ("num_frames=1", "num_frames", "video.num_frames"),
        ("optim.learning_rate=1", "optim.learning_rate", "optim.lr"),
        ("optim.wd=1", "optim.wd", "optim.weight_decay"),
        ("train.eval_evry=1", "train.eval_evry", "train.eval_every"),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one(tmp_path: Path, override: str, unknown: str, meant: str) -> None:
    text = error_of(write(tmp_path, MINIMAL), override)
    assert text == f"command line: {unknown}: unknown key; did you mean {meant}?"


def test_an_unknown_key_in_a_file_or_base_names_that_file(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL + "video: {num_frame: 4}", "low.yaml")
    path = write(tmp_path, "base: low.yaml\n")
    assert error_of(path) == "low.yaml: video.num_frame: unknown key; did you mean video.num_frames?"
    path = write(tmp_path, MINIMAL + "1: 2")
    assert error_of(path).startswith("config.yaml: 1: unknown key; did you mean ")
    path = write(tmp_path, "model.text.width: 3")
    assert error_of(path) == (
        "config.yaml: model.text.width: unknown key; write it inside its section: model: {text: {width: ...}}"
    )


def test_all_missing_keys_are_named_at_once(tmp_path: Path) -> None:
    expected = "config.yaml: data.root, train.batch_size, train.max_epochs: missing, and without a default"
    assert error_of(write(tmp_path, "optim: {lr: 1}")) == expected
    assert error_of(write(tmp_path, "# nothing\n")).startswith("config.yaml: data.root, optim.lr, train.batch_size, ")


def test_checks_of_the_schema_name_the_file_and_the_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "model: {heads: 7}")
    assert error_of(path) == "config.yaml: model.heads: 7 does not divide model.width 768"
    path = write(tmp_path, MINIMAL)
    assert error_of(path, "seed=1", "video.image_size=50") == (
        "command line: video.image_size: 50 is no multiple of model.patch_size 16"
    )
    assert error_of(path, "seed=1", "model.width=770") == (
        "config.yaml with seed=1 model.width=770: model.heads: 12 does not divide model.width 770"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1,\nb: 2", "config.yaml, line 2: expected ',' or ']', but got '<stream end>'"),
        ("seed: 1\nvideo:\n\tnum_frames: 2", "config.yaml, line 3: found character '\\t' that cannot start any token"),
        ("seed: 1\nseed: 2", 'config.yaml, line 2: found duplicate key "seed" with value "2" (original value: "1")'),
        ("seed: 1\n---\nseed: 2", "config.yaml, line 2: but found another document"),
        (
            "seed: 1\ndata: !!python/object/apply:os.getcwd []",
            "config.yaml, line 2: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.getcwd'",
        ),
        ("seed: !mine 1", "config.yaml, line 1: could not determine a constructor for the tag '!mine'"),
        ("[1, 2]", "config.yaml: found [1, 2], expected sections of keys and values"),
        ("checkpoint: 2024-13-45", "config.yaml: month must be in 1..12"),
    ],
)
def test_broken_yaml_names_file_and_line(tmp_path: Path, text: str, expected: str) -> None:
    assert error_of(write(tmp_path, text)) == expected


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert error_of(tmp_path / "gone.yaml") == "gone.yaml: cannot be read: No such file or directory"
    assert error_of(write(tmp_path, "base: gone.yaml")) == "gone.yaml: cannot be read: No such file or directory"
    (tmp_path / "latin.yaml").write_bytes(b"seed: \xff")
    assert error_of(tmp_path / "latin.yaml") == "latin.yaml: is no UTF-8 text"
    assert error_of(write(tmp_path, "seed: \x07")).startswith("config.yaml: ")


def test_a_base_has_no_base_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "base: lowest.yaml\n", "low.yaml")
    expected = "low.yaml: base: a base cannot have a base of its own; list both in config.yaml"
    assert error_of(write(tmp_path, "base: low.yaml")) == expected
    assert error_of(write(tmp_path, "base: config.yaml")).startswith("config.yaml: base: a base cannot have")
    for value in ("3", "[1]", "null"):
        expected = f"config.yaml: base: found {value}, expected a path or a list of paths"
        assert error_of(write(tmp_path, f"base: {value}")) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optim.lr"], "command line: 'optim.lr': expected KEY=VALUE, such as optim.lr=1e-5"),
        (["seed=1", "seed=2"], "command line: seed: given twice"),
        (["seed=1", "seed.x=2"], "command line: seed.x: seed is a value, not a section"),
        (["seed.x=2"], 'command line: seed: found {"x": 2}, expected a whole number'),
        (["seed=[1"], "command line: seed, line 1: expected ',' or ']', but got '<stream end>'"),
        (["seed="], "command line: seed: found null, expected a whole number"),
        (["train=3"], "command line: train: found 3, expected a section of keys and values"),
    ],
)
def test_overrides_that_cannot_be(tmp_path: Path, overrides: list[str], expected: str) -> None:
    assert error_of(write(tmp_path, MINIMAL), *overrides) == expected


SOURCES = MINIMAL.replace("{root: /data}", "{root: /data, sources: %s}")


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (
            "[{file: a}, {file: b, wieght: 2}]",
            "data.sources[1].wieght: unknown key; did you mean data.sources[1].weight?",
        ),
        ("[{file: a, weight: heavy}]", 'data.sources[0].weight: found "heavy", expected a number'),
        ("[{file: a}, b.csv]", 'data.sources[1]: found "b.csv", expected a section of keys and values'),
        ("b.csv", 'data.sources: found "b.csv", expected a list, each a section of keys and values'),
        ("{file: a}", 'data.sources: found {"file": "a"}, expected a list, each a section of keys and values'),
        ("[{media: a}, {weight: 2}]", "data.sources[0].file, data.sources[1].file: missing, and without a default"),
        ("[{file: a}, {file: b, weight: 0}]", "data.sources[1].weight: 0.0 shows nothing of b; remove the source"),
        ("[{file: b, batch_size: 0}]", "data.sources[0].batch_size: 0 is less than 1"),
        (
            "[{file: a}, {file: b, num_frames: 1}]",
            "data.sources[1].num_frames: takes data.mixing batch; samples of one batch are alike",
        ),
    ],
)  # fmt: skip
def test_errors_in_a_list_of_sections_name_its_place(tmp_path: Path, sources: str, expected: str) -> None:
    """In a file and on the command line."""
    text = error_of(write(tmp_path, SOURCES % sources), config_class=PretrainConfig)
    assert text == f"config.yaml: {expected}"
    override = f"data.sources={sources}"
    text = error_of(write(tmp_path, MINIMAL), override, config_class=PretrainConfig)
    assert text in (f"command line: {expected}", f"config.yaml with {override}: {expected}")


def test_a_dotted_key_that_is_nowhere_near_a_section_still_gets_a_remedy(tmp_path: Path) -> None:
    assert error_of(write(tmp_path, "nothing.like_it: 3")).startswith(
        "config.yaml: nothing.like_it: unknown key; did you mean "
    )


def test_a_new_reducer_or_amount_replaces_what_a_lower_layer_says(tmp_path: Path) -> None:
    lower = "aggregation: {reducer: geometry, keep: 0.5, frame_match: mean, proportional_attention: true}"
    write(tmp_path, MINIMAL + lower, "low.yaml")
    path = write(tmp_path, "base: low.yaml")
    assert load(RetrievalConfig, path, ["aggregation.reducer=none"]).aggregation == AggregationConfig()
    assert load(RetrievalConfig, path, ["aggregation.reducer=prune"]).aggregation == AggregationConfig(
        reducer="prune", keep=0.5
    )
    assert load(RetrievalConfig, path, ["aggregation.frames_per_block=1"]).aggregation == AggregationConfig(
        reducer="geometry", frames_per_block=1, frame_match="mean", proportional_attention=True
    )
    # A setting without effect is still refused where it is in the same layer, and so is what the layers leave of it.
    assert "frame_match: mean has no effect" in error_of(
        path, "aggregation.reducer=importance", "aggregation.frame_match=mean"
    )
    write(
        tmp_path,
        MINIMAL + "aggregation: {reducer: run_length, keep: 0.5, kept_by: random, train_keep: [0.1, 1.0]}",
        "drawn.yaml",
    )
    path = write(tmp_path, "base: drawn.yaml")
    assert load(RetrievalConfig, path, ["aggregation.keep=0.2"]).aggregation == AggregationConfig(
        reducer="run_length", keep=0.2, kept_by="random", train_keep=(0.1, 1.0)
    )
    assert load(RetrievalConfig, path, ["aggregation.reducer=none"]).aggregation == AggregationConfig()
    assert load(RetrievalConfig, path, ["aggregation.threshold=0.2"]).aggregation == AggregationConfig(
        reducer="run_length", threshold=0.2
    )

    path = write(tmp_path, "base: low.yaml\naggregation: {patches_per_block: 12}")
    assert load(RetrievalConfig, path, ["aggregation.keep=0.9"]).aggregation.patches_per_block == 0


@pytest.mark.parametrize(
    ("lower", "override", "left"),
    [
        ("tome, weighted_pooling: true", "reducer=tome", {"reducer": "tome", "keep": 0.5, "weighted_pooling": True}),
        ("tome, merge_weight: saliency", "reducer=none", {}),
        (
            "tome, merge_weight: saliency, proportional_attention: true, weighted_pooling: true",
            "inside=none",
            {"reducer": "run_length", "keep": 0.5},
        ),
        (
            "tome, merge_weight: saliency, proportional_attention: true, weighted_pooling: true",
            "inside=saliency",
            {"inside": "saliency", "keep": 0.5, "tokens_per_block": (9, 3), "weighted_pooling": True},
        ),
        ("tome", "keep=0.75", {"inside": "tome", "keep": 0.75, "tokens_per_block": (9, 3)}),
        ("tome", "tokens_per_block=4", {"inside": "tome", "keep": 0.5, "tokens_per_block": 4}),
    ],
)
def test_what_merges_inside_goes_with_run_length_tokens(
    tmp_path: Path, lower: str, override: str, left: dict[str, Any]
) -> None:
    section = f"aggregation: {{reducer: run_length, keep: 0.5, tokens_per_block: [9, 3], inside: {lower}}}"
    path = write(tmp_path, f"{MINIMAL}model: {{attention: joint}}\n{section}")
    expected = AggregationConfig(**({"reducer": "run_length", **left} if left else {}))
    assert load(RetrievalConfig, path, [f"aggregation.{override}"]).aggregation == expected


def test_amounts_of_another_reducer_do_not_become_those_inside(tmp_path: Path) -> None:
    section = "aggregation: {reducer: tome, tokens_per_block: 20, merge_weight: saliency}"
    path = write(tmp_path, f"{MINIMAL}model: {{attention: joint}}\n{section}")
    found = load(
        RetrievalConfig, path, ["aggregation.reducer=run_length", "aggregation.inside=tome", "aggregation.keep=0.5"]
    )
    assert found.aggregation == AggregationConfig(reducer="run_length", keep=0.5, inside="tome")
    assert load(RetrievalConfig, path, ["aggregation.inside=none"]).aggregation.tokens_per_block == 20
