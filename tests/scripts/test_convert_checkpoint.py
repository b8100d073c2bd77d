"""The reference's files and our folders, there and back through the command."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from configs.load import dump, from_dict, load_any
from configs.schema import CONFIG_CLASSES, ObjectiveConfig, RetrievalConfig
from engine import checkpoint_folder
from engine.checkpoint_folder import read_json, read_weights, save_weights
from models.parts.tokenizer import make_tokenizer
from scripts import convert_checkpoint
from tasks.objectives.momentum import MomentumObjective
from tests.integration.runs import results_of, start
from tests.models.testa.weights.published import BLIP_FILES, FILES, SMALL, Sizes, build, random, shapes_of
from tests.models.tiny import vision_language
from tests.tiny_runs import write_data

SIZES = replace(SMALL, vocabulary=60, positions=24)
WORDS = ("the red one falls and stops", "blue is still")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "words"
    make_tokenizer(WORDS, SIZES.vocabulary).save(folder)
    return folder


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[int, str]:
        """The exit status and what was printed; of an error without the log before it."""
        monkeypatch.setattr(sys, "argv", ["convert_checkpoint", *map(str, arguments)])
        status = convert_checkpoint.main()
        captured = capsys.readouterr()
        return status, captured.err[captured.err.find("error: ") :] if status else captured.out

    return run


def write(path: Path, kind: str, sizes: Sizes = SIZES) -> dict[str, torch.Tensor]:
    tensors = build(kind, sizes, random)
    torch.save({"model": tensors, "epoch": 4, "optimizer": {"state": {}}}, path)
    return tensors


@pytest.mark.parametrize("kind", [*FILES, *BLIP_FILES])
def test_a_file_becomes_a_folder_and_the_same_file_again(tmp_path: Path, tokenizer: Path, convert, kind: str) -> None:
    tensors = write(tmp_path / "in.pth", kind)
    status, said = convert(tmp_path / "in.pth", tmp_path / "folder", "--tokenizer", tokenizer)
    assert status == 0, said
    family, task = kind.split("_")
    assert said.splitlines()[0] == (
        f"{tmp_path / 'folder'}: {task}, {8 if family == 'testa' else 32} frames of 16 pixels, "
        f"{'divided' if family == 'testa' else 'space'} attention, {len(read_weights(tmp_path / 'folder'))} tensors"
    )
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {
        "model.safetensors", "config.yaml", "state.json", "tokenizer", "SHA256SUMS"
    }  # fmt: skip
    assert read_json(tmp_path / "folder" / "state.json")["task"] == task
    config = load_any(CONFIG_CLASSES, tmp_path / "folder" / "config.yaml", [])
    assert (config.task, config.model.width, config.model.text.vocab_size) == (task, 64, 60)
    assert config.model.temporal_scaling == (kind == "testa_pretrain")
    if task in ("pretrain", "retrieval"):
        assert config.objective.queue_size == 5
    status, said = convert(tmp_path / "folder", tmp_path / "out.pth")
    assert (status, said.strip()) == (0, f"{tmp_path / 'out.pth'}: {task}, {len(tensors)} tensors under 'model'")
    back = torch.load(tmp_path / "out.pth", weights_only=True)
    assert back.keys() == {"model"} and back["model"].keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back["model"][name].dtype == tensor.dtype and torch.equal(back["model"][name], tensor), name


def test_a_folder_of_ours_has_the_references_names_and_shapes(tmp_path: Path, convert) -> None:
    """A task's state as training writes it, against names that are written out from the published files."""
    model = vision_language(width=64)
    objectives = MomentumObjective(model, ObjectiveConfig(losses=("vtc", "vtm"), queue_size=7), "index", seed=0)
    module = nn.ModuleDict({"model": model, "objectives": objectives})
    folder = tmp_path / "checkpoint_best"
    folder.mkdir()
    save_weights(module.state_dict(), folder / checkpoint_folder.WEIGHTS)
    sections = {"data": {"root": "d"}, "optim": {"lr": 1e-4}, "train": {"batch_size": 4, "max_epochs": 1}}
    dump(from_dict(RetrievalConfig, {**sections, "task": "retrieval"}, "test"), folder / checkpoint_folder.CONFIG)
    assert convert(folder, tmp_path / "out.pt")[0] == 0
    sizes = replace(SMALL, text_width=32, queue=7)
    found = torch.load(tmp_path / "out.pt", weights_only=True)["model"]
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == shapes_of("testa_retrieval", sizes)
    assert torch.equal(found["image_queue"], objectives.queue.video.T)
    whole = {name for name, tensor in found.items() if tensor.dtype == torch.int64}
    assert whole == {"idx_queue", "ptr_queue"} | {name for name in found if name.endswith("position_ids")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", [1, 2, 1, 1])


def test_a_converted_folder_is_evaluated_and_trained_on_like_the_file(tmp_path: Path, data: Path, convert) -> None:
    sizes = replace(SMALL, vocabulary=200, positions=24, places=65)  # 32 pixels
    words = [line for line in (data / "captions.jsonl").read_text().splitlines()]
    make_tokenizer(words, 200).save(tmp_path / "words")
    write(tmp_path / "in.pth", "testa_retrieval", sizes)
    assert convert(tmp_path / "in.pth", tmp_path / "folder", "--tokenizer", tmp_path / "words")[0] == 0
    common = (f"data.root={data}", "train.workers=0", "train.batch_size=4")
    one, two = tmp_path / "one", tmp_path / "two"
    from_folder = f"checkpoint={tmp_path / 'folder'}"
    assert start("train_retrieval", "--evaluate", from_folder, *common, f"output_dir={one}") == 0
    from_file = (f"checkpoint={tmp_path / 'in.pth'}", f"model.text.tokenizer={tmp_path / 'words'}")
    config = tmp_path / "folder" / "config.yaml"
    assert start("train_retrieval", "--config", config, "--evaluate", *from_file, *common, f"output_dir={two}") == 0
    results = results_of(one)
    assert results["metrics"] == results_of(two)["metrics"] and results["num_videos"] == 4
    assert results["config"]["video"]["eval_sampling"] == "uniform_floor"
    tuned = ("train.max_epochs=1", "video.num_frames=4", f"output_dir={tmp_path / 'tuned'}")
    assert start("train_retrieval", "--config", config, from_folder, *common, *tuned) == 0
    assert (tmp_path / "tuned" / "checkpoint_best" / "model.safetensors").exists()


FILE = """
task: retrieval
data: {root: d}
optim: {lr: 1e-5}
train: {batch_size: 4, max_epochs: 1}
model:
  depth: 2
  width: 64
  heads: 4
  patch_size: 4
  embed_dim: 16
  text: {vocab_size: 60, depth: 2, width: 64, heads: 4, intermediate: 48, max_positions: 24}
video: {num_frames: 8, image_size: 16}
aggregation: {reducer: geometry, frames_per_block: 1, patches_per_block: 2}
"""


def test_a_configuration_says_what_the_names_do_not(tmp_path: Path, tokenizer: Path, convert) -> None:
    write(tmp_path / "in.pth", "testa_retrieval")
    config = tmp_path / "model.yaml"
    config.write_text(FILE)
    arguments = (tmp_path / "in.pth", tmp_path / "folder", "--tokenizer", tokenizer, "--config", config)
    assert convert(*arguments)[0] == 0
    written = load_any(CONFIG_CLASSES, tmp_path / "folder" / "config.yaml", [])
    assert written == load_any(CONFIG_CLASSES, config, [])
    config.write_text(FILE.replace("embed_dim: 16", "embed_dim: 24"))
    status, said = convert(arguments[0], tmp_path / "other", *arguments[2:])
    assert status == 2 and "text_proj.bias: has shape (16,), the model's is (24,)" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "in.pth", "model.yaml", "words"]


def test_a_twin_that_does_not_fit_is_refused_as_well(tmp_path: Path, tokenizer: Path, convert) -> None:
    tensors = build("testa_retrieval", SIZES, random)
    tensors["text_proj_m.bias"] = torch.zeros(3)
    torch.save(tensors, tmp_path / "in.pth")
    status, said = convert(tmp_path / "in.pth", tmp_path / "folder", "--tokenizer", tokenizer)
    assert status == 2 and "text_proj_m.bias: has shape (3,), the model's is (16,)" in said


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": torch.zeros(1)}, "is no checkpoint of TESTA or BLIP"),
        (
            {"patch_embed.proj.weight": torch.zeros(1)},
            "is no checkpoint of TESTA or BLIP (ViTs of timm need no",
        ),
        ({"model.visual_encoder.cls_token": torch.zeros(1)}, "is a checkpoint of this project; name a file OUT.pth"),
        ({"visual_encoder.blocks.0.x": torch.zeros(1)}, "holds visual_encoder: that is no model of a task"),
        (
            {"visual_encoder.blocks.0.x": torch.zeros(1), "text_encoder.a": torch.zeros(1)},
            "lacks what its sizes are read from: 'visual_encoder.cls_token'",
        ),
        (
            {"visual_encoder.blocks.0.x": torch.zeros(1), "classifier.a": torch.zeros(1)},
            "holds parts that no",
        ),
    ],
)
def test_files_that_cannot_be_converted(tmp_path: Path, convert, tensors: dict, words: str) -> None:
    torch.save(tensors, tmp_path / "in.pth")
    status, said = convert(tmp_path / "in.pth", tmp_path / "folder")
    assert status == 2 and said.startswith(f"error: {tmp_path / 'in.pth'}: {words}") and len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_arguments_that_make_no_sense(tmp_path: Path, tokenizer: Path, convert) -> None:
    write(tmp_path / "in.pth", "testa_vqa")
    assert convert(tmp_path / "in.pth", tmp_path / "in.pth") == (
        2, f"error: {tmp_path / 'in.pth'}: exists; choose another name\n"
    )  # fmt: skip
    assert convert(tmp_path / "in.pth", tmp_path / "out.pth")[1].startswith(
        f"error: {tmp_path / 'in.pth'}: is no checkpoint of this project; name a folder to convert it to"
    )
    assert "has no effect on the way to a file" in convert(tokenizer, tmp_path / "a.pth", "--tokenizer", tokenizer)[1]
    small = replace(SIZES, vocabulary=30)
    write(tmp_path / "few.pth", "testa_vqa", small)
    assert convert(tmp_path / "few.pth", tmp_path / "folder", "--tokenizer", tokenizer)[1] == (
        f"error: {tmp_path / 'few.pth'}: has 30 words, and the tokenizer {len(make_tokenizer(WORDS, 60))}\n"
    )
    assert not (tmp_path / "folder").exists() and not (tmp_path / "out.pth").exists()
