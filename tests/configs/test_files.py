"""The files of the published rows: compute against the paper, settings against the release and the paper."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from configs.load import differences, dump, load, load_any, load_to_evaluate, to_dict
from configs.schema import CONFIG_CLASSES, AggregationConfig, PretrainConfig, RetrievalConfig, RunConfig
from models.testa.cost import count

counted = cache(count)
ROOT = Path(__file__).resolve().parents[2] / "configs" / "testa"
FINETUNED = {
    folder: sorted(path for path in (ROOT / folder).glob("*.yaml") if not path.stem.startswith(("base", "recipe_")))
    for folder in ("retrieval", "vqa", "caption")
}
# GMACs of the video encoder by the end of a file's name, behind its dataset.
GMACS = {
    "f32": 419.841, "f32_none": 786.817, "zeroshot_f32": 786.817,
    "f96": 1381.402, "f96_none": 2382.535, "f96_merge_untrained": 1381.402, "f96_prune_untrained": 1380.878,
    "f96_importance": 1380.943, "f96_frames": 1303.874, "f96_patches": 1364.022,
    "f16": 228.966, "f16_none": 392.512, "f16_tome": 252.439, "f16_joint": 449.976,
    # Not in the paper: as scripts/count_flops.py counts, which tests/scripts/test_count_flops.py holds to a formula.
    "f256": 3193.361, "large_f32": 1462.363, "large_f96": 4859.507,
}  # fmt: skip
# The longer of two names that begin alike comes first.
DATASETS = (
    "didemo_caption", "msrvtt_caption", "testa_caption", "testa_qa", "activitynet_qa", "msrvtt_qa",
    "queryd", "didemo", "activitynet", "condensed_movies", "msrvtt", "testa",
)  # fmt: skip
# Of the release's own files: most tokens of a text, batch size over 8 GPUs at 32 and 96 frames, rate, epochs.
RELEASE = {
    "queryd": (128, 32, 16, 1e-5, 10),
    "didemo": (64, 32, 16, 1e-5, 10),
    "activitynet": (64, 32, 16, 1e-5, 20),
    "condensed_movies": (32, 32, 32, 1e-5, 10),
}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def split_name(path: Path) -> tuple[str, str]:
    """A file's dataset, and the rest of its name."""
    dataset = next(name for name in DATASETS if path.stem.startswith(f"{name}_"))
    return dataset, path.stem.removeprefix(f"{dataset}_")


def read(path: Path) -> Any:
    return load_any(CONFIG_CLASSES, path, [])


PUBLIC = [path for paths in FINETUNED.values() for path in paths if not path.stem.startswith("testa_")]


@pytest.mark.parametrize("path", [path for paths in FINETUNED.values() for path in paths], ids=name_of)
def test_compute_is_the_papers(path: Path) -> None:
    config = read(path)
    cost = counted(config.model, config.video, config.aggregation)
    assert cost.gmacs == pytest.approx(GMACS[split_name(path)[1]], abs=2e-3)


def test_the_rows_of_all_tables_are_there() -> None:
    retrieval = {path.stem for path in FINETUNED["retrieval"]}
    for dataset in RELEASE:
        assert {f"{dataset}_{end}" for end in ("f32", "f32_none", "f96", "f96_none")} <= retrieval
    assert {f"{dataset}_zeroshot_f32" for dataset in ("queryd", "didemo", "activitynet")} <= retrieval
    assert {f"queryd_{end}" for end in GMACS if end[0] == "f" and end != "f256"} | {"queryd_zeroshot_f32"} <= retrieval
    assert {path.stem for path in FINETUNED["vqa"]} == {
        "activitynet_qa_f32", "activitynet_qa_f96", "msrvtt_qa_f32", "testa_qa_f32"
    }  # fmt: skip
    assert {path.stem for path in FINETUNED["caption"]} == {
        "didemo_caption_f32",
        "msrvtt_caption_f32",
        "testa_caption_f32",
    }


@pytest.mark.parametrize("path", [path for path in PUBLIC if split_name(path)[0] in RELEASE], ids=name_of)
def test_settings_are_the_releases(path: Path) -> None:
    config = read(path)
    tokens, batch_32, batch_96, rate, epochs = RELEASE[split_name(path)[0]]
    assert config.data.max_tokens == tokens
    assert config.train.batch_size == (batch_96 if config.video.num_frames == 96 else batch_32)
    assert (config.optim.lr, config.optim.min_lr, config.train.max_epochs) == (rate, 0.0, epochs)
    if config.task == "retrieval":
        objective = config.objective
        assert (objective.queue_size, objective.alpha, objective.momentum, objective.alpha_ramp_epochs) == (
            32, 0.4, 0.995, 1.0
        )  # fmt: skip
        assert (objective.vtc_keys, objective.negatives, config.evaluation.rerank) == ("local", "all", 128)


@pytest.mark.parametrize("path", PUBLIC, ids=name_of)
def test_recipes_of_release_and_paper_change_places(path: Path, tmp_path: Path) -> None:
    config = read(path)
    assert_release(config)
    content = YAML(typ="safe", pure=True).load(path)
    content["base"] = [
        str((path.parent / name.replace("recipe_release", "recipe_paper")).resolve())
        for name in content["base"]
        if name != "recipe_release.yaml"
    ]
    other = tmp_path / "paper.yaml"
    with other.open("w") as file:
        YAML(typ="safe", pure=True).dump(content, file)
    paper = read(other)
    assert_paper(paper)
    changed = {line.partition(":")[0] for line in differences(to_dict(config), to_dict(paper))}
    always = {"video.train_sampling", "video.eval_sampling", "optim.warmup_ratio", "optim.update", "optim.decay"}
    assert always <= changed <= always | {"optim.lr", "train.batch_size", "train.max_epochs", "objective.vtc_keys"}


def assert_release(config: RunConfig) -> None:
    assert (config.video.train_sampling, config.video.eval_sampling) == ("uniform_floor", "uniform_floor")
    optim = config.optim
    assert (optim.warmup_ratio, optim.warmup_steps, optim.schedule, optim.update) == (0.0, 0, "cosine", "epoch")
    assert (optim.weight_decay, optim.decay) == (0.05, "all")


def assert_paper(config: RunConfig) -> None:
    assert (config.video.train_sampling, config.video.eval_sampling) == ("uniform", "uniform")
    optim, train = config.optim, config.train
    assert (optim.warmup_ratio, optim.schedule, optim.update, optim.weight_decay) == (0.1, "cosine", "step", 0.05)
    assert (optim.lr, train.batch_size, train.max_epochs) == (1e-5, 16, 10)


def test_pretraining_of_release_and_paper() -> None:
    release = load(PretrainConfig, ROOT / "pretrain" / "webvid_cc3m.yaml", [])
    paper = load(PretrainConfig, ROOT / "pretrain" / "testa_f8.yaml", [])
    for config in (release, paper):
        optim = config.optim
        assert (optim.lr, optim.min_lr, optim.warmup_lr, optim.warmup_steps) == (5e-6, 5e-7, 1e-6, 5000)
        assert (config.train.batch_size, config.objective.queue_size, config.data.max_words) == (384, 57600, 30)
        assert (config.video.num_frames, config.video.train_sampling, config.video.augment) == (8, "headtail", True)
    assert (release.optim.schedule, release.optim.decay_rate, release.train.max_epochs) == ("exponential", 0.95, 20)
    assert (release.optim.weight_decay, release.model.temporal_scaling) == (0.0, True)
    assert (paper.optim.schedule, paper.train.max_epochs, paper.optim.weight_decay) == ("cosine", 5, 0.05)
    assert not paper.model.temporal_scaling and paper.objective.vtc_keys == "all"
    assert [source.file for source in release.data.sources] == ["webvid/results_2M_train.csv", "cc3m/train.tsv"]


def test_the_answering_protocol_of_the_published_number() -> None:
    for stem, answers in (
        ("activitynet_qa_f96", "evaluated_split"),
        ("msrvtt_qa_f32", "train"),
        ("testa_qa_f32", "train"),
    ):
        assert read(ROOT / "vqa" / f"{stem}.yaml").evaluation.answers == answers


def test_validation_sets_that_stand_for_test_sets_are_no_test_sets() -> None:
    for dataset, apart in (("activitynet", False), ("msrvtt", False), ("queryd", True), ("condensed_movies", True)):
        assert read(ROOT / "retrieval" / f"{dataset}_f32.yaml").data.test_is_apart == apart, dataset


@pytest.mark.parametrize(
    ("stem", "num_frames", "sampling", "aggregation"),
    [
        ("didemo_zeroshot_f32", 32, "uniform_floor", AggregationConfig()),
        (
            "queryd_f96_prune_untrained", 96, "uniform",
            AggregationConfig(reducer="prune", frames_per_block=4, patches_per_block=8),
        ),
        (
            "queryd_f96_merge_untrained", 96, "uniform",
            AggregationConfig(reducer="geometry", frames_per_block=4, patches_per_block=8),
        ),
        # A file that does not say so leaves the checkpoint as it was trained.
        ("queryd_f32", 96, "uniform", AggregationConfig()),
    ],
)  # fmt: skip
def test_rows_that_evaluate_another_training_put_their_own_input_over_its(
    tmp_path: Path, stem: str, num_frames: int, sampling: str, aggregation: AggregationConfig
) -> None:
    trained = load(
        RetrievalConfig, ROOT / "retrieval" / "queryd_f96_none.yaml", ["video.eval_sampling=uniform", "model.depth=6"]
    )
    dump(trained, tmp_path / "config.yaml")
    config = load_to_evaluate(RetrievalConfig, ROOT / "retrieval" / f"{stem}.yaml", [f"checkpoint={tmp_path}"])
    assert (config.video.num_frames, config.video.eval_sampling) == (num_frames, sampling)
    assert config.aggregation == aggregation and config.model.depth == 6
