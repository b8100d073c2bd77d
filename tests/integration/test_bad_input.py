"""Each kind of bad input ends with status 2 and one line that says what to do; nothing is written, nothing lost."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from datasets.sources import open_source
from tests.integration.runs import SCRIPTS, files_below, start, weights_of, write_config
from tests.tiny_runs import write_data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a configuration, and a finished run in `trained`."""
    root = write_data(tmp_path_factory.mktemp("data"), [1, 1, 1, 1])
    config = write_config("retrieval", root, train={"max_epochs": 1})
    assert start("train_retrieval", "--config", config, f"output_dir={root / 'trained'}") == 0
    return root


def refused(root: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a refused command says after `error: `; checks that this is all, and that no file came, changed or went."""
    before = files_below(root)
    capsys.readouterr()
    assert start("train_retrieval", *arguments) == 2
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in said.err + said.out
    assert files_below(root) == before
    return said.err[said.err.index("error: ") :].removeprefix("error: ").rstrip("\n")


Change = Callable[[Path], dict[str, Any]]


def manifest(root: Path, text: str) -> dict[str, Any]:
    (root / "bad.jsonl").write_text(text)
    return {"data.manifest": "bad.jsonl"}


GOOD_LINE = json.dumps({"video": "0.mp4", "caption": "a red ball"}) + "\n"
DATA_ERRORS: dict[str, tuple[Change, str]] = {
    "missing video folder": (
        lambda root: {"data.videos": root / "nowhere"},
        r"{root}/captions.jsonl:1: no folder {root}/nowhere for '0.mp4'; set data.videos to it",
    ),
    "no video in the folder": (
        lambda root: {"data.videos": root},
        r"none of the 4 videos is in {root} \(the first is {root}/0.mp4\); set data.videos to the folder that holds "
        "them",
    ),
    "no data folder": (
        lambda root: {"data.root": root / "nowhere"},
        "{root}/nowhere/captions.jsonl: no such manifest; set data.manifest to a JSONL file, .*",
    ),
    "empty manifest": (
        lambda root: manifest(root, "\n"),
        r'{root}/bad.jsonl: the manifest is empty; write one \{{"video": ..., "caption": ...\}} a line',
    ),
    "a line that is no JSON": (
        lambda root: manifest(root, GOOD_LINE * 2 + "0.mp4 a blue ball\n"),
        r"{root}/bad.jsonl:3: not JSON \(.*\); write one object a line",
    ),
    "a caption of no words": (
        lambda root: manifest(root, GOOD_LINE + '{"video": "1.mp4", "caption": "..."}\n'),
        r"{root}/bad.jsonl:2: caption '...' has no words; describe the video or remove the line",
    ),
    "half of a character": (
        lambda root: manifest(root, GOOD_LINE + '{"video": "1.mp4", "caption": "a \\ud83d dog"}\n'),
        r"{root}/bad.jsonl:2: caption 'a \\ud83d dog' is not valid Unicode: character 3 is \\ud83d, half of a "
        "surrogate pair; write the whole character or remove it",
    ),
    "a key twice": (
        lambda root: manifest(root, GOOD_LINE + '{"video": "1.mp4", "caption": "a dog", "caption": "a cat"}\n'),
        r"{root}/bad.jsonl:2: key 'caption' stands twice in one object; keep one of them",
    ),
    "a path that leaves the folder": (
        lambda root: manifest(root, GOOD_LINE + '{"video": "../1.mp4", "caption": "a dog"}\n'),
        r"{root}/bad.jsonl:2: video '../1.mp4' leaves the folder of videos; set data.videos to a folder .*",
    ),
    "a training set smaller than a batch": (
        lambda root: {"train.batch_size": 8},
        "train.batch_size: 8 is more than the 4 training pairs; make it smaller",
    ),
    "an evaluation set that is not there": (
        lambda root: {"data.eval_manifest": "test.jsonl"},
        "{root}/test.jsonl: no such manifest; .*",
    ),
    "more warm-up than steps": (
        lambda root: {"optim.warmup_steps": 50},
        "optim.warmup_steps: 50 are more than the 1 steps of the run; lower it or raise train.max_epochs",
    ),
    "a vocabulary that cannot be": (
        lambda root: {"model.text.vocab_size": 20},
        r"model.text.vocab_size: 20 is too few for the \d+ characters of the captions",
    ),
    "nothing to freeze": (
        lambda root: {"optim.freeze": "[text_encodr]"},
        "optim.freeze: 'text_encodr' begins no parameter's name; near are text_encoder.*",
    ),
}


@pytest.mark.parametrize("case", DATA_ERRORS)
def test_bad_data(root: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    change, expected = DATA_ERRORS[case]
    overrides = [f"{key}={value}" for key, value in change(root).items()]
    said = refused(root, capsys, "--config", root / "config.yaml", f"output_dir={root / 'new'}", *overrides)
    assert re.fullmatch(expected.format(root=re.escape(str(root))), said), said
    assert not (root / "new").exists()


CONFIG_ERRORS = {
    "optim.weight_decya=1": r"command line: optim.weight_decya: unknown key; did you mean optim.weight_decay\?",
    "agregation.keep=1": r"command line: agregation: unknown key; did you mean aggregation\?",
    "train.max_epochs=many": 'command line: train.max_epochs: found "many", expected a whole number',
    "aggregation.frames_per_block=2": r".*: aggregation.frames_per_block: block 0 is to lose 2 of the 4 frames that "
    "reach it; at most 1 can leave in one block. Lower it, or give the model more to begin with",
    "aggregation.patches_per_block=3": r".*: aggregation.patches_per_block: block 0 is to lose 3 of the 4 patches .*",
    "video.num_frames=2": r".*: aggregation.frames_per_block: block 0 is to lose 1 of the 2 frames .*",
    "video.image_size=40": r".*: video.image_size: 40 is no multiple of model.patch_size 16",
    "data.cache_gb=1": r".*: data.cache_gb: has no effect unless data.cache is memory",
    "objective.losses=[vtc,vtm,cap]": r".*: objective.losses: retrieval has no decoder to caption with; .*",
    "train.batch_size=1": r".*: train.batch_size: matching needs a second sample as negative; .*",
    "seed": r"command line: 'seed': expected KEY=VALUE, such as optim.lr=1e-5",
}


@pytest.mark.parametrize("override", CONFIG_ERRORS)
def test_bad_settings(root: Path, capsys: pytest.CaptureFixture[str], override: str) -> None:
    said = refused(root, capsys, "--config", root / "config.yaml", f"output_dir={root / 'new'}", override)
    assert re.fullmatch(CONFIG_ERRORS[override], said), said


def test_a_misspelt_key_in_a_file_names_the_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "misspelt.yaml"
    path.write_text((root / "config.yaml").read_text().replace("patches_per_block", "patch_per_block"))
    assert refused(root, capsys, "--config", path) == (
        f"{path}: aggregation.patch_per_block: unknown key; did you mean aggregation.patches_per_block?"
    )
    missing = root / "nowhere.yaml"
    assert refused(root, capsys, "--config", missing).startswith(f"{missing}: cannot be read: No such file")


def test_a_checkpoint_of_another_shape_names_keys_and_shapes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = root / "trained" / "checkpoint_best"
    expected = [
        f"{best}: is of another model than `model` describes:",
        "  visual_encoder.blocks.2.norm1.weight: missing",
        "  vision_proj.weight: has shape (8, 16), the model's is (12, 16)",
        "  text_encoder.embeddings.word_embeddings.weight: has shape (200, 16), the model's is (300, 16); "
        "take the tokenizer it was made with",
    ]
    overrides = ("model.depth=3", "aggregation.reducer=none", "model.embed_dim=12", "model.text.vocab_size=300")
    train = ("--config", root / "config.yaml", f"output_dir={root / 'new'}", f"checkpoint={best}", *overrides)
    for arguments in (train, ("--evaluate", f"checkpoint={best}", *overrides)):
        said = refused(root, capsys, *arguments).splitlines()
        # Too many to list all; those of the video encoder come first.
        assert said[0] == expected[0] and expected[1] in said and said[-1].startswith("  and ")
    said = refused(root, capsys, "--evaluate", f"checkpoint={best}", "model.embed_dim=12").splitlines()
    assert said[0] == expected[0] and expected[2] in said
    said = refused(root, capsys, "--evaluate", f"checkpoint={best}", "model.text.vocab_size=300").splitlines()
    assert said == [expected[0], expected[3], expected[3].replace("text_encoder", "text_encoder_m")]


def test_checkpoints_that_are_none(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ("--config", root / "config.yaml", f"output_dir={root / 'new'}")
    gone, text, other = root / "gone", root / "text.safetensors", root / "other.safetensors"
    text.write_text("these are no weights")
    save_file({"weight": torch.zeros(2)}, other)
    for evaluate in ((), ("--evaluate",)):
        said = refused(root, capsys, *config, *evaluate, f"checkpoint={gone}")
        assert said == f"checkpoint: {gone} does not exist"
        said = refused(root, capsys, *config, *evaluate, f"checkpoint={text}")
        assert said.startswith(f"{text}: is no safetensors file: ")
        said = refused(root, capsys, *config, *evaluate, f"checkpoint={other}")
        assert said == f"{other}: is no checkpoint of this project, TESTA, BLIP or a ViT of timm; it holds weight"
    assert refused(root, capsys, "--evaluate") == (
        "command line: checkpoint: nothing to evaluate; give checkpoint=FILE_OR_FOLDER"
    )


def test_an_output_folder_that_holds_another_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ("--config", root / "config.yaml", f"output_dir={root / 'trained'}")
    said = refused(root, capsys, *config, "optim.lr=0.5", "seed=1", "data.cache=memory").splitlines()
    assert said == [
        f"{root / 'trained'}: holds a run with other settings; choose another output_dir, or set these back:",
        "  optim.lr: was 0.001, now 0.5",
        "  seed: was 42, now 1",
    ]
    config_of_other = write_config("pretrain", root, "pretrain.yaml", output_dir=str(root / "trained"))
    open_source(root / "captions.jsonl", root / "videos")  # its index stays beside it, whatever becomes of a run
    before = files_below(root)
    assert start("pretrain", "--config", config_of_other) == 2
    assert f"error: {root / 'trained'}: holds a run of retrieval, not of pretrain;" in capsys.readouterr().err
    assert files_below(root) == before


@pytest.mark.parametrize("task", ["retrieval", "pretrain"])
def test_a_run_that_is_resumed_with_other_data_of_equal_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    write_data(tmp_path, [1, 1, 1, 1])
    config = write_config(task, tmp_path, train={"max_epochs": 1})
    script, out = SCRIPTS[task], f"output_dir={tmp_path / 'run'}"
    assert start(script, "--config", config, out) == 0
    lines = (tmp_path / "captions.jsonl").read_text().splitlines()
    (tmp_path / "captions.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert start(script, "--config", config, out, "train.max_epochs=2") == 2
    assert "checkpoint_last: was trained on other data: videos, texts or their order" in capsys.readouterr().err
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n")
    assert start(script, "--config", config, out, "train.max_epochs=2") == 0


def test_a_run_needs_a_config(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_below(root)
    assert start("train_retrieval", f"data.root={root}") == 2
    assert "error: --config FILE is needed to train" in capsys.readouterr().err
    assert files_below(root) == before


def test_pretraining_is_not_evaluated(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config("pretrain", root, "pretrain.yaml", objective={"losses": ["vtc", "vtm"]})
    arguments = ("--config", config, "--evaluate", f"checkpoint={root / 'trained' / 'checkpoint_best'}")
    assert start("pretrain", *arguments) == 2
    said = capsys.readouterr().err
    assert "error: pre-training has no evaluation; evaluate a checkpoint with train_retrieval.py --evaluate" in said


def test_files_none_of_which_can_be_read(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path, [1, 1, 1, 1], real=False)
    for workers in (0, 1):
        config = write_config(
            "retrieval", tmp_path, train={"workers": workers}, output_dir=str(tmp_path / str(workers))
        )
        assert start("train_retrieval", "--config", config) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert len(errors) == 1 and "4 videos drawn one after the other cannot be read, the first is" in errors[0]
        assert not list((tmp_path / str(workers)).glob("checkpoint*"))


def test_losses_that_are_no_numbers_stop_the_run_saved_from_before_them(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {"max_epochs": 9, "max_skipped": 2}
    config = write_config("retrieval", root, "diverging.yaml", optim={"lr": 1e9}, train=train)
    assert start("train_retrieval", "--config", config, f"output_dir={tmp_path / 'run'}") == 2
    said = capsys.readouterr().err
    assert re.search(
        r"error: 3 steps in a row up to step \d were not finite and skipped, the last: loss .*lower optim.lr", said
    )
    assert "Traceback" not in said
    assert all(tensor.isfinite().all() for tensor in weights_of(tmp_path / "run" / "checkpoint_last").values())
