"""Which settings an evaluation runs with, and which configuration class a file is of."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.entry_scripts import entry_script
from configs.load import dump, from_dict, load, load_any, load_to_evaluate
from configs.schema import CONFIG_CLASSES, PretrainConfig, RetrievalConfig, VqaConfig

ROOT = Path(__file__).resolve().parents[2]

TRAINED: dict[str, Any] = {
    "task": "retrieval",
    "data": {"root": "/trained", "manifest": "train.jsonl"},
    "optim": {"lr": 1e-4},
    "train": {"batch_size": 8, "max_epochs": 3},
    "model": {"depth": 4, "width": 32, "heads": 2},
    "video": {"num_frames": 8, "image_size": 64, "eval_sampling": "uniform_floor"},
    "aggregation": {"reducer": "geometry", "keep": 0.5},
    "evaluation": {"rerank": 5},
    "checkpoint": "/trained/from",
    "output_dir": "/trained/run",
    "seed": 7,
}
FILE = """
task: retrieval
data: {root: /file}
optim: {lr: 1e-5}
train: {batch_size: 2, max_epochs: 1}
model: {depth: 2}
aggregation: {reducer: prune, patches_per_block: 2}
evaluation: {rerank: 64}
output_dir: /file/run
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint_best"
    folder.mkdir()
    dump(from_dict(RetrievalConfig, TRAINED, "test"), folder / "config.yaml")
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("inside", ["", "model.safetensors"])
def test_without_a_file_all_is_the_checkpoints_own_but_where_it_started_and_wrote(
    checkpoint: Path, inside: str
) -> None:
    given = str(checkpoint / inside)
    config = load_to_evaluate(RetrievalConfig, None, [f"checkpoint={given}"])
    assert config == from_dict(RetrievalConfig, {**TRAINED, "checkpoint": given, "output_dir": None}, "test")


def test_a_file_says_all_but_the_model_and_its_input(checkpoint: Path, file: Path) -> None:
    config = load_to_evaluate(RetrievalConfig, file, [f"checkpoint={checkpoint}"])
    trained = from_dict(RetrievalConfig, TRAINED, "test")
    assert (config.model, config.video, config.aggregation) == (trained.model, trained.video, trained.aggregation)
    assert (config.data.root, config.evaluation.rerank, config.output_dir) == ("/file", 64, "/file/run")
    assert (config.optim.lr, config.train.batch_size, config.seed) == (1e-5, 2, 42)
    assert config.checkpoint == str(checkpoint)


def test_a_file_may_put_its_input_and_aggregation_over_the_checkpoints(checkpoint: Path, file: Path) -> None:
    file.write_text(f"{FILE}evaluate_with: [aggregation]\nvideo: {{image_size: 32}}\n")
    config = load_to_evaluate(RetrievalConfig, file, [f"checkpoint={checkpoint}"])
    assert (config.aggregation.reducer, config.aggregation.patches_per_block, config.aggregation.keep) == (
        "prune", 2, None,
    )  # fmt: skip
    assert (config.model.depth, config.video.num_frames, config.video.image_size) == (4, 8, 64)
    file.write_text(f"{FILE}evaluate_with: [video]\nvideo: {{image_size: 32}}\n")
    config = load_to_evaluate(RetrievalConfig, file, [f"checkpoint={checkpoint}"])
    assert (config.video.num_frames, config.video.image_size, config.aggregation.keep) == (32, 32, 0.5)


@pytest.mark.parametrize("found", ['"video"', '["model"]', "[3]", "null"])
def test_what_a_file_cannot_put_over_the_checkpoints(checkpoint: Path, file: Path, found: str) -> None:
    file.write_text(f"{FILE}evaluate_with: {found}\n")
    expected = f"{file}: evaluate_with: found {found}, expected a list of video and aggregation and model.pooling"
    for read in (lambda: load_to_evaluate(RetrievalConfig, file, [f"checkpoint={checkpoint}"]),
                 lambda: load(RetrievalConfig, file, [])):  # fmt: skip
        with pytest.raises(ValueError) as caught:
            read()
        assert str(caught.value) == expected


def test_the_file_may_name_the_checkpoint(checkpoint: Path, file: Path) -> None:
    file.write_text(f"{FILE}checkpoint: {checkpoint}\n")
    assert load_to_evaluate(RetrievalConfig, file, []).model.depth == 4


@pytest.mark.parametrize("with_file", [True, False])
def test_overrides_stand_over_both(checkpoint: Path, file: Path, with_file: bool) -> None:
    def evaluated(*overrides: str) -> RetrievalConfig:
        return load_to_evaluate(RetrievalConfig, file if with_file else None, [f"checkpoint={checkpoint}", *overrides])

    bigger = evaluated("video.num_frames=16", "video.image_size=96", "data.root=/own")
    assert (bigger.video.num_frames, bigger.video.image_size, bigger.data.root) == (16, 96, "/own")
    assert bigger.video.eval_sampling == "uniform_floor"
    none = evaluated("aggregation.reducer=none").aggregation
    assert (none.reducer, none.keep) == ("none", None)
    per_block = evaluated("aggregation.frames_per_block=1").aggregation
    assert (per_block.reducer, per_block.frames_per_block, per_block.keep) == ("geometry", 1, None)


def test_a_lone_file_of_weights_needs_a_configuration(tmp_path: Path, file: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    config = load_to_evaluate(RetrievalConfig, file, [f"checkpoint={weights}"])
    assert (config.model.depth, config.aggregation.reducer) == (2, "prune")
    with pytest.raises(ValueError, match=f"^{weights}: has no config.yaml beside it; say with --config what it is of$"):
        load_to_evaluate(RetrievalConfig, None, [f"checkpoint={weights}"])


def test_nothing_to_evaluate(tmp_path: Path, file: Path) -> None:
    with pytest.raises(
        ValueError, match="^command line: checkpoint: nothing to evaluate; give checkpoint=FILE_OR_FOLDER$"
    ):
        load_to_evaluate(RetrievalConfig, file, [])
    gone = tmp_path / "gone"
    with pytest.raises(ValueError, match=f"^command line: checkpoint: {gone} does not exist$"):
        load_to_evaluate(RetrievalConfig, None, [f"checkpoint={gone}"])


def test_another_tasks_checkpoint_needs_a_file_that_says_what_to_evaluate(checkpoint: Path, file: Path) -> None:
    own = checkpoint / "config.yaml"
    own.write_text(own.read_text().replace("task: retrieval", "task: pretrain"))
    with pytest.raises(ValueError, match=f'^{own}: is of "pretrain"; use pretrain.py, or say with --config what .*'):
        load_to_evaluate(RetrievalConfig, None, [f"checkpoint={checkpoint}"])
    assert load_to_evaluate(RetrievalConfig, file, [f"checkpoint={checkpoint}"]).model.depth == 4


def test_errors_in_the_checkpoints_configuration_name_its_file(checkpoint: Path, file: Path) -> None:
    own = checkpoint / "config.yaml"
    own.write_text(own.read_text().replace("depth: 4", "depht: 4", 1))
    for path in (file, None):
        with pytest.raises(ValueError, match=f"^{own}: model.depht: unknown key; did you mean model.depth"):
            load_to_evaluate(RetrievalConfig, path, [f"checkpoint={checkpoint}"])


def test_a_schedule_that_the_evaluated_frames_cannot_hold_is_refused(checkpoint: Path) -> None:
    overrides = [f"checkpoint={checkpoint}", "video.num_frames=3", "aggregation.frames_per_block=1"]
    with pytest.raises(ValueError, match=r"aggregation.frames_per_block: block 1 is to lose 1 of the 2 frames"):
        load_to_evaluate(RetrievalConfig, None, overrides)


CLASSES = (PretrainConfig, RetrievalConfig)


def test_the_task_of_a_file_chooses_the_class(tmp_path: Path, file: Path) -> None:
    assert type(load_any(CLASSES, file, [])) is RetrievalConfig
    base = tmp_path / "base.yaml"
    base.write_text(FILE.replace("task: retrieval", "task: pretrain").replace("evaluation: {rerank: 64}", ""))
    above = tmp_path / "above.yaml"
    above.write_text("base: base.yaml\nseed: 3\n")
    inherited = load_any(CLASSES, above, ["optim.lr=2"])
    assert (type(inherited), inherited.seed, inherited.optim.lr) == (PretrainConfig, 3, 2.0)


def test_the_files_own_task_goes_over_its_bases(tmp_path: Path, file: Path) -> None:
    (tmp_path / "other.yaml").write_text("task: retrieval\n")
    file.write_text(
        "base: [other.yaml]\n" + FILE.replace("retrieval", "pretrain").replace("evaluation: {rerank: 64}", "")
    )
    with pytest.raises(ValueError, match=r"other.yaml: task: found \"retrieval\", expected one of pretrain"):
        load_any(CLASSES, file, [])


@pytest.mark.parametrize(("line", "found"), [("task: retreival", '"retreival"'), ("", "null")])
def test_a_file_of_no_known_task_is_refused(file: Path, line: str, found: str) -> None:
    file.write_text(FILE.replace("task: retrieval", line))
    with pytest.raises(ValueError, match=f"^{file}: task: found {found}, expected one of pretrain, retrieval$"):
        load_any(CLASSES, file, [])


@pytest.mark.parametrize("with_file", [False, True])
def test_a_setting_that_the_checkpoint_has_no_use_for_is_the_command_lines_and_has_a_remedy(
    checkpoint: Path, file: Path, with_file: bool
) -> None:
    trained = from_dict(RetrievalConfig, {**TRAINED, "aggregation": {}}, "test")
    dump(trained, checkpoint / "config.yaml")
    asked = [f"checkpoint={checkpoint}", "aggregation.keep=0.25"]
    with pytest.raises(ValueError) as caught:
        load_to_evaluate(RetrievalConfig, file if with_file else None, asked)
    assert str(caught.value) == (
        "command line: aggregation.keep: 0.25 has no effect with reducer 'none', which leaves all tokens; add "
        "aggregation.reducer=geometry (importance, prune, tome, saliency, run_length, tempme, quadtree)"
    )
    merging = load_to_evaluate(RetrievalConfig, None, [*asked, "aggregation.reducer=geometry"])
    assert (merging.aggregation.reducer, merging.aggregation.keep) == ("geometry", 0.25)


def test_a_file_of_another_task_names_its_script() -> None:
    questions = ROOT / "configs" / "debug" / "clips_qa.yaml"
    for config_class, script in ((RetrievalConfig, "train_vqa.py"), (PretrainConfig, "train_vqa.py")):
        said = f"^{questions}: task: is vqa, not {config_class.task}; use {script} with this file$"
        with pytest.raises(ValueError, match=said):
            load(config_class, questions, ["data.root=/d"])
    with pytest.raises(ValueError, match="is retrieval, not vqa; use train_retrieval.py"):
        load(VqaConfig, ROOT / "configs" / "debug" / "clips.yaml", [])
    with pytest.raises(ValueError, match="is pretrain, not vqa; use pretrain.py"):
        load(VqaConfig, ROOT / "configs" / "debug" / "pretrain_stories.yaml", [])


def test_a_task_without_a_script_is_refused_by_its_type(tmp_path: Path) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text("task: retreival\n")
    with pytest.raises(ValueError, match='task: found "retreival", expected one of retrieval$'):
        load(RetrievalConfig, path, [])


def test_every_task_has_its_script() -> None:
    assert all(entry_script(config_class.task) for config_class in CONFIG_CLASSES)
    assert entry_script("checkers") is None and entry_script(["a", "list"]) is None


def test_a_file_may_pool_otherwise_than_the_checkpoint_was_trained(tmp_path: Path) -> None:
    """vid-TLDR's lists over UMT's training, which pools each frame; all else of the model is the checkpoint's."""
    folder = Path(__file__).resolve().parents[2] / "configs" / "umt" / "retrieval"
    trained = load(RetrievalConfig, folder / "msrvtt_b16.yaml", ["model.depth=3", "model.drop_path=0.0"])
    assert trained.model.pooling == "frames"
    dump(trained, tmp_path / "config.yaml")
    asked = [f"checkpoint={tmp_path}"]
    reduced = load_to_evaluate(RetrievalConfig, folder / "msrvtt_b16_vidtldr.yaml", asked)
    assert reduced.model == replace(trained.model, pooling="all")
    assert reduced.aggregation.tokens_per_block == (600, 200, 100)
    assert load_to_evaluate(RetrievalConfig, folder / "msrvtt_b16.yaml", asked).model == trained.model
