"""UMT through the entry script: it trains, is evaluated from its own and from published files, and drops no result."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from inference.api import load_model
from models.umt.weights import to_published
from tests.integration.runs import results_of, start
from tests.tiny_runs import write_data

SECTIONS: dict[str, Any] = {
    "model": {
        "name": "umt", "depth": 2, "width": 24, "heads": 2, "patch_size": 8, "embed_dim": 16, "pooling": "all",
        "text": {
            "tokenizer": "from_data", "vocab_size": 120, "depth": 3, "width": 16, "heads": 2, "intermediate": 32,
            "max_positions": 32, "dropout": 0.0, "fusion_layer": 2,
        },
    },
    "video": {"num_frames": 4, "image_size": 32},
    "objective": {"losses": ["vtc", "vtm"], "queue_size": 0, "momentum": 0.0, "alpha": 0.0},
    "evaluation": {"rerank": 4, "rerank_rule": "logit"},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a finished run in `run`."""
    root = write_data(tmp_path_factory.mktemp("data"), [1] * 8)
    settings = {
        "task": "retrieval",
        "data": {"root": str(root), "manifest": "captions.jsonl"},
        "optim": {"lr": 1e-3},
        "train": {"batch_size": 4, "max_epochs": 2, "workers": 0},
        "output_dir": str(root / "run"),
        **SECTIONS,
    }
    with (root / "config.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(settings, file)
    assert start("train_retrieval", "--config", root / "config.yaml") == 0
    return root


def evaluate(root: Path, checkpoint: Path, name: str, *words: str) -> dict[str, Any]:
    arguments = (f"checkpoint={checkpoint}", f"data.root={root}", f"output_dir={root / name}", *words)
    assert start("train_retrieval", "--evaluate", *arguments) == 0
    return results_of(root / name)["metrics"]


def test_a_checkpoint_and_its_published_form_have_the_same_results(root: Path) -> None:
    checkpoint = root / "run" / "checkpoint_best"
    trained = results_of(root / "run")["metrics"]
    assert evaluate(root, checkpoint, "own") == trained

    own = {name.removeprefix("model."): tensor for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    torch.save({"model": to_published(own, "retrieval")}, root / "published.pth")
    found = evaluate(root, root / "published.pth", "published", "--config", str(root / "config.yaml"))
    # The vocabulary made of the training captions is the same, as the captions are.
    assert found == trained


@pytest.mark.parametrize("batch_size", [1, 3])
def test_results_do_not_depend_on_the_batch(root: Path, batch_size: int) -> None:
    checkpoint, setting = root / "run" / "checkpoint_best", f"evaluation.batch_size={batch_size}"
    assert evaluate(root, checkpoint, f"batch{batch_size}", setting) == results_of(root / "run")["metrics"]


def test_saliency_merges_at_evaluation_and_says_so(root: Path) -> None:
    checkpoint = root / "run" / "checkpoint_best"
    merged = ("aggregation.reducer=saliency", "aggregation.tokens_per_block=[20, 8]")
    metrics = evaluate(root, checkpoint, "merged", *merged)
    assert metrics.keys() == results_of(root / "run")["metrics"].keys()

    video = next((root / "videos").iterdir())
    whole, few = (load_model(str(checkpoint), *words).encode_tokens(str(video)) for words in ((), merged))
    assert len(whole.tokens) - len(few.tokens) == 28
    # Every cell is in one of the tokens that are left; sizes are weighed by saliency, so they sum to less.
    assert np.array_equal(np.unique(few.origins[few.origins >= 0]), np.arange(len(few.tokens)))
    assert len(few.tokens) < few.size.sum() < len(whole.tokens)


def test_what_umt_cannot_do_is_refused(root: Path) -> None:
    for words in (("objective.losses=[vtc, vtm, cap]",), ("objective.momentum=0.9",)):
        arguments = ("--config", root / "config.yaml", f"output_dir={root / 'refused'}", *words)
        assert start("train_retrieval", *arguments) == 2
