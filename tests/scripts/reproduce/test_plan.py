"""The commands of a row, and what is refused before any of them runs."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from configs.schema import RetrievalConfig
from models.testa.published import PUBLISHED
from scripts.parts.row_configs import read_config
from scripts.parts.rows.table import ROWS as ROWS_OF_ALL
from scripts.parts.rows.testa import PRETRAINED, PUBLICATION
from scripts.reproduce.plan import Request, make_plan, recipe_settings

ROWS = {row.name: row for row in PUBLICATION.rows}
(BLIP,) = (weights for weights in PUBLISHED if weights.name == "model_base_capfilt_large.pth")


def plan_of(name: str, **asked: Any) -> tuple[list[list[str]], str, Path]:
    """The commands as words after `python`, whose weights are evaluated, and where the results will be."""
    plan = make_plan(ROWS[name], Request(**{"data": Path("/d"), "out": Path("/o"), **asked}))
    assert [shlex.split(line)[1:] for line in plan.lines()] == [list(words) for words in plan.commands]
    return [list(words) for words in plan.commands], plan.weights, plan.results


def test_released_weights_are_evaluated_and_nothing_is_trained() -> None:
    commands, weights, results = plan_of("queryd_f32")
    assert commands == [
        [
            "train_retrieval.py", "--evaluate", "--config", "configs/testa/retrieval/queryd_f32.yaml",
            "data.root=/d/queryd",
            f"checkpoint={ROWS['queryd_f32'].released}", "output_dir=/o/queryd_f32/evaluation",
        ]
    ]  # fmt: skip
    assert (weights, results) == ("released", Path("/o/queryd_f32/evaluation"))


def test_zero_shot_evaluates_the_pretrained_weights() -> None:
    ((*_, checkpoint, _),), weights, _ = plan_of("didemo_zeroshot_f32")
    assert (checkpoint, weights) == (f"checkpoint={PRETRAINED}", "released")


@pytest.mark.parametrize(
    ("name", "script"), [("queryd_f96", "train_retrieval.py"), ("activitynet_qa_f96", "train_vqa.py")]
)
def test_what_was_not_released_is_trained_from_the_pretrained_weights(name: str, script: str) -> None:
    (training, evaluation), weights, _ = plan_of(name)
    assert training[:3] == [script, "--config", ROWS[name].config]
    assert training[4:] == [f"checkpoint={PRETRAINED}", f"output_dir=/o/{name}/training"]
    assert evaluation[:2] == [script, "--evaluate"] and f"checkpoint=/o/{name}/training/checkpoint_best" in evaluation
    assert weights == "trained"


def test_the_untrained_rows_share_one_training_without_aggregation() -> None:
    plans = [plan_of(f"queryd_f96_{how}_untrained")[0] for how in ("prune", "merge")]
    assert plans[0][0] == plans[1][0] == plan_of("queryd_f96_none")[0][0]
    assert plans[0][1] != plans[1][1]
    assert "checkpoint=/o/queryd_f96_none/training/checkpoint_best" in plans[0][1]
    (alone,), weights, _ = plan_of("queryd_f96_prune_untrained", checkpoint="best")
    assert "checkpoint=best" in alone and weights == "given"


def test_a_given_file_of_the_released_name_is_held_to_the_released_weights_tolerance() -> None:
    assert plan_of("didemo_f32", checkpoint="/w/testa_model_base_didemo_f32_f1p12.pth")[1] == "released"
    assert plan_of("didemo_f32", checkpoint="/w/testa_model_base_anet_f32_f1p12.pth")[1] == "given"


def test_training_can_be_asked_for_and_started_from_other_weights(tmp_path: Path) -> None:
    (training, _), weights, _ = plan_of("queryd_f32", retrain=True)
    assert f"checkpoint={PRETRAINED}" in training and weights == "trained"
    blip = tmp_path / "blip.pth"
    blip.touch()
    for name in ("queryd_f32", "queryd_f16_tome"):
        assert f"checkpoint={blip}" in plan_of(name, retrain=True, start=str(blip))[0][0]


def test_processes_recipe_and_overrides_are_in_every_command() -> None:
    asked = {"processes": 8, "recipe": "paper", "overrides": ("train.workers=2", "optim.lr=3e-5")}
    for words in plan_of("queryd_f96", **asked)[0]:
        assert words[:4] == ["-m", "engine.launch", "--nproc_per_node=8", "train_retrieval.py"]
        settings = [word.partition("=")[0] for word in words if "=" in word and not word.startswith("--")]
        assert len(settings) == len(set(settings)) and {"train.workers", "optim.warmup_ratio"} <= set(settings)
        assert "optim.lr=3e-5" in words


@pytest.mark.parametrize("name", ["queryd_f32_none", "queryd_f96", "queryd_f16_tome", "activitynet_qa_f96"])
def test_the_papers_recipe_loads_over_every_kind_of_row(name: str) -> None:
    row = ROWS[name]
    released = read_config(row)
    settings = recipe_settings(row, "paper")
    paper = read_config(row, [f"{key}={value}" for key, value in settings.items()])
    assert (released.optim.warmup_ratio, paper.optim.warmup_ratio) == (0.0, 0.1)
    assert recipe_settings(row, "release") == {}


def test_the_number_of_gpus_is_warned_of_where_it_matters() -> None:
    """The release contrasts each GPU's own batch."""

    def warnings(name: str, **asked: Any) -> tuple[str, ...]:
        return make_plan(ROWS[name], Request(data=Path("/d"), out=Path("/o"), **asked)).warnings

    assert "trained on 8 GPUs" in warnings("queryd_f96", processes=4)[0]
    assert warnings("queryd_f96", processes=8) == ()
    assert warnings("queryd_f96", overrides=("objective.vtc_keys=all",)) == ()
    assert warnings("queryd_f32") == warnings("queryd_f96", checkpoint="x") == warnings("activitynet_qa_f96") == ()


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "start without training": ("queryd_f32", {"start": "x"}, "--start: has no effect: .*; add --train"),
    "start with a checkpoint": ("queryd_f96", {"start": "x", "checkpoint": "y"}, "--start: has no effect with --check"),
    "training zero-shot": ("didemo_zeroshot_f32", {"retrain": True}, "--train: didemo_zeroshot_f32 is zero-shot, .*"),
    "training a checkpoint": ("queryd_f32", {"retrain": True, "checkpoint": "y"}, "--train: has no effect with"),
    "a planned setting": ("queryd_f32", {"overrides": ("output_dir=x",)}, "output_dir: is planned here; .* --out"),
    "no setting": ("queryd_f32", {"overrides": ("fast",)}, "command line: 'fast': expected KEY=VALUE"),
    "a setting twice": ("queryd_f32", {"overrides": ("seed=1", "seed=2")}, "command line: seed: given twice"),
    "no recipe": ("queryd_f32", {"recipe": "mine"}, "--recipe: mine is no recipe of TESTA; it has release, paper"),
    "no process": ("queryd_f32", {"processes": 0}, "--nproc: 0 is less than 1"),
}


@pytest.mark.parametrize(("name", "asked", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_contradictions_are_refused(name: str, asked: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        plan_of(name, **asked)


def test_weights_that_are_not_there_are_warned_of_and_the_commands_stand() -> None:
    blip = f"somewhere/{BLIP.name}"
    for start, more in ((blip, f"; fetch {BLIP.source} and give its path"), ("x", "")):
        plan = make_plan(ROWS["queryd_f16"], Request(data=Path("/d"), out=Path("/out"), start=start, processes=8))
        assert plan.warnings == (f"--start: {start}, from which queryd_f16 is trained, does not exist{more}",)
        assert len(plan.commands) == 2 and f"checkpoint={start}" in plan.commands[0]


def test_folders_of_data_are_those_the_configurations_name() -> None:
    folders = {word for name in ROWS for word in plan_of(name, checkpoint="weights")[0][-1]}
    roots = {word.removeprefix("data.root=/d/") for word in folders if word.startswith("data.root=")}
    assert roots == {"queryd", "condensed_movies", "didemo", "activitynet_captions", "activitynet_qa"}
    assert isinstance(read_config(ROWS["queryd_f32"]), RetrievalConfig)


def test_rows_of_other_systems_are_run_by_their_own_files() -> None:
    """Their weights are files to download, and what reduces without training is trained without reducing."""

    def commands(name: str, **asked: Any) -> tuple[tuple[str, ...], ...]:
        return make_plan(ROWS_OF_ALL[name], Request(data=Path("/d"), out=Path("/o"), **asked)).commands

    reduced = "umt/retrieval/msrvtt_b16_vidtldr"
    ((script, *_, checkpoint, out),) = commands(reduced)
    assert (script, checkpoint) == ("train_retrieval.py", "checkpoint=checkpoints/ret_msrvtt_b16_25m.pth")
    assert out == f"output_dir=/o/{reduced}/evaluation"
    training, evaluation = commands(reduced, retrain=True)
    assert "configs/umt/retrieval/msrvtt_b16.yaml" in training
    assert f"configs/{reduced}.yaml" in evaluation
    assert "checkpoint=/o/umt/retrieval/msrvtt_b16/training/checkpoint_best" in evaluation
    # Of these the zoo has no weights.
    for name in ("umt/retrieval/ssv2_template_l16", "umt/vqa/msvd_qa_l16", "umt/choice/msrvtt_mc_b16"):
        assert "checkpoint=checkpoints/" in " ".join(commands(name)[0]) and len(commands(name)) == 2
    with pytest.raises(ValueError, match="^--recipe: paper is no recipe of UMT and vid-TLDR; it has release$"):
        commands(reduced, recipe="paper")
