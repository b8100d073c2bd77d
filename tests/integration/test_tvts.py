"""TVTSv2 through the entry script: it trains, is evaluated from its own and from published files, and merges tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from models.parts.clip.image_tower import ImageTower
from models.parts.clip.sizes import ImageTowerSizes, TextTowerSizes
from models.parts.clip.text_tower import TextTower
from models.tvts.model import Tvts
from models.tvts.weights import to_published
from tests.integration.runs import results_of, start
from tests.models.parts.clip.copies import write_torchscript
from tests.tiny_runs import write_data

SECTIONS: dict[str, Any] = {
    "model": {
        "name": "tvts", "depth": 2, "width": 24, "heads": 2, "patch_size": 8, "embed_dim": 16, "sort_heads": 2,
        "text": {
            "tokenizer": "from_data", "vocab_size": 560, "depth": 4, "width": 16, "heads": 2, "max_positions": 24,
        },
    },
    "video": {
        "num_frames": 4, "image_size": 32, "train_sampling": "interval_random", "eval_sampling": "interval_middle",
    },
    "objective": {"losses": ["vtc"], "queue_size": 0, "momentum": 0.0, "alpha": 0.0, "temperature": 0.05},
    "evaluation": {"rerank": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a finished run in `run`."""
    root = write_data(tmp_path_factory.mktemp("data"), [1] * 8)
    config = root / "config.yaml"
    write_tvts_config(root)
    assert start("train_retrieval", "--config", config) == 0
    return root


def write_tvts_config(root: Path, name: str = "config.yaml", **sections: Any) -> Path:
    settings = {
        "task": "retrieval",
        "data": {"root": str(root), "manifest": "captions.jsonl"},
        "optim": {"lr": 1e-3},
        "train": {"batch_size": 4, "max_epochs": 2, "workers": 0},
        "output_dir": str(root / "run"),
        **SECTIONS,
        **sections,
    }
    with (root / name).open("w") as file:
        YAML(typ="safe", pure=True).dump(settings, file)
    return root / name


def evaluate(root: Path, checkpoint: Path, name: str, *words: str) -> dict[str, Any]:
    arguments = (f"checkpoint={checkpoint}", f"data.root={root}", f"output_dir={root / name}", *words)
    assert start("train_retrieval", "--evaluate", *arguments) == 0
    return results_of(root / name)["metrics"]


def test_its_own_checkpoint_and_a_published_file_of_the_same_weights_give_the_same(root: Path) -> None:
    folder = root / "run" / "checkpoint_last"
    own = evaluate(root, folder, "own")
    stored = load_file(folder / "model.safetensors")
    weights = {name.removeprefix("model."): tensor for name, tensor in stored.items() if name.startswith("model.")}
    published = {f"module.{name}": tensor for name, tensor in to_published(weights).items()}
    torch.save({"state_dict": published}, root / "TVTSv2.pth")

    model = {**SECTIONS["model"], "text": {**SECTIONS["model"]["text"], "tokenizer": str(folder / "tokenizer")}}
    config = write_tvts_config(root, "published.yaml", model=model)
    arguments = ("--config", config, f"checkpoint={root / 'TVTSv2.pth'}", f"output_dir={root / 'published'}")
    assert start("train_retrieval", "--evaluate", *arguments) == 0
    assert results_of(root / "published")["metrics"] == own


def test_evaluation_without_tokens_asks_for_embeddings_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "run" / "checkpoint_last"
    expected = evaluate(root, folder, "whole")

    def encode_all(*_: object) -> None:
        raise AssertionError("tokens are not asked for")

    monkeypatch.setattr(Tvts, "encode_video", encode_all)
    assert evaluate(root, folder, "alone") == expected


def test_any_checkpoint_is_evaluated_with_tokens_merged(root: Path) -> None:
    folder = root / "run" / "checkpoint_last"
    merged = ("aggregation.reducer=geometry", "aggregation.frames_per_block=1", "aggregation.patches_per_block=4")
    assert evaluate(root, folder, "merged", *merged).keys() == evaluate(root, folder, "whole").keys()
    more_frames = evaluate(root, folder, "frames", "video.num_frames=8")
    assert 0 <= more_frames["t2v_r1"] <= 100


def test_an_archive_of_openai_starts_it(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = SECTIONS["model"]
    image = ImageTowerSizes(model["width"], model["depth"], model["heads"], model["patch_size"], 32, model["embed_dim"])
    folder = root / "run" / "checkpoint_last"
    text = TextTowerSizes(16, 4, 2, model["embed_dim"], context=24, vocab_size=model["text"]["vocab_size"])
    weights = {f"visual.{name}": tensor for name, tensor in ImageTower(image).state_dict().items()}
    write_torchscript(root / "ViT.pt", {**weights, **TextTower(text).state_dict()})

    settings = {**model, "text": {**model["text"], "tokenizer": str(folder / "tokenizer")}}
    config = write_tvts_config(root, "clip.yaml", model=settings)
    arguments = ("--config", config, f"checkpoint={root / 'ViT.pt'}", f"output_dir={root / 'clip'}")
    assert start("train_retrieval", "--evaluate", *arguments) == 0
    assert "so it is CLIP frame by frame" in capfd.readouterr().err


def test_a_loss_that_the_model_does_not_have_is_refused(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = write_tvts_config(root, "vtm.yaml", objective={"losses": ["vtc", "vtm"], "queue_size": 0})
    assert start("train_retrieval", "--config", config, f"output_dir={root / 'refused'}") == 2
    assert "tvts has no head that matches" in capfd.readouterr().err
