"""What may differ between two runs without a difference in their numbers, and what freezing and decay do."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.integration.runs import (
    SHORT,
    assert_same_losses,
    command,
    results_of,
    start,
    train,
    weights_of,
    write_config,
)
from tests.tiny_runs import write_data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a finished run in `run`."""
    root = write_data(tmp_path_factory.mktemp("data"), [1, 2, 1, 1, 1, 2, 1, 1])
    assert start("train_retrieval", "--config", write_config("retrieval", root, **SHORT)) == 0
    return root


EQUAL: dict[str, dict[str, Any]] = {
    "recompute": {"train": {"activation_checkpointing": "recompute"}},
    "offload": {"train": {"activation_checkpointing": "offload"}},
    "workers": {"train": {"workers": 2}},
    "cache": {"data": {"cache": "memory"}},
    "evaluation in other batches": {"evaluation": {"batch_size": 3, "rerank_batch_size": 2}},
}


@pytest.mark.parametrize("case", EQUAL)
def test_what_is_about_memory_and_speed_changes_no_number(root: Path, tmp_path: Path, case: str) -> None:
    sections = dict(EQUAL[case])
    sections["train"] = {**SHORT["train"], **sections.get("train", {})}
    folder = train(root, tmp_path / "run", optim=SHORT["optim"], **sections)
    assert_same_losses(folder, root / "run", 1e-5)
    assert results_of(folder)["metrics"] == results_of(root / "run")["metrics"]


def test_a_compiled_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is traced whole and run by torch: writing C++ for it takes minutes and is torch's to test."""
    compiled: list[nn.Module] = []
    original = nn.Module.compile

    def traced(module: nn.Module, fullgraph: bool, dynamic: bool) -> None:
        compiled.append(module)
        original(module, fullgraph=fullgraph, dynamic=dynamic, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    section = {**SHORT["train"], "compile": True, "activation_checkpointing": "recompute"}
    folder = train(root, tmp_path / "run", optim=SHORT["optim"], train=section)
    assert [type(module).__name__ for module in compiled] == ["VideoEncoder"]
    assert_same_losses(folder, root / "run", 1e-4)


def test_accumulation_is_one_step_over_its_parts(root: Path, tmp_path: Path) -> None:
    """Captions alone are of each row for itself, so cutting the batch changes the sum only by how parts are weighed."""
    objective = {"losses": ["cap"], "queue_size": 0}
    (root / "even.jsonl").write_text(
        "".join(json.dumps({"video": f"{video}.mp4", "caption": f"red ball {video}"}) + "\n" for video in range(8))
    )
    folders = [
        train(
            root, tmp_path / str(accumulate), "pretrain", objective=objective,
            data={"root": str(root), "manifest": "even.jsonl"},
            train={"batch_size": 8, "accumulate": accumulate, "max_epochs": 3},
        )
        for accumulate in (1, 4)
    ]  # fmt: skip
    assert_same_losses(*folders, 1e-5)
    for name, tensor in weights_of(folders[0] / "checkpoint_last").items():
        # Elsewhere gradients may be mere rounding (that of a key's bias is), which AdamW blows up.
        if name.endswith("dense.weight"):
            assert torch.allclose(tensor, weights_of(folders[1] / "checkpoint_last")[name], atol=1e-4), name


def test_frozen_parts_stay_and_lower_layers_learn_slower(root: Path, tmp_path: Path) -> None:
    optim = {"lr": 1e-3, "weight_decay": 0.0, "freeze": ["text_encoder.embeddings", "vision_proj"]}
    first = {"max_epochs": 1, "batch_size": 8}
    start_of = weights_of(
        train(root, tmp_path / "still", optim={"lr": 0.0, "weight_decay": 0.0}, train=first) / "checkpoint_last"
    )
    plain = weights_of(train(root, tmp_path / "plain", optim=optim, train=first) / "checkpoint_last")
    decayed = weights_of(
        train(root, tmp_path / "decayed", optim={**optim, "layer_decay": 0.5}, train=first) / "checkpoint_last"
    )

    def moved(weights: dict[str, torch.Tensor], name: str) -> float:
        return float((weights[f"model.{name}"] - start_of[f"model.{name}"]).abs().max())

    for name in ("text_encoder.embeddings.word_embeddings.weight", "vision_proj.weight"):
        assert moved(plain, name) == moved(decayed, name) == 0
    # Adam's first step is the learning rate, whatever the gradient.
    for name, factor in (("blocks.1", 0.5), ("blocks.0", 0.25)):
        weight = f"visual_encoder.{name}.attn.qkv.weight"
        assert moved(plain, weight) == pytest.approx(1e-3, rel=0.02)
        assert moved(decayed, weight) == pytest.approx(factor * 1e-3, rel=0.02)
    assert moved(decayed, "text_proj.weight") == pytest.approx(1e-3, rel=0.02)


def test_two_processes_of_torchrun_train_and_evaluate_as_one(root: Path, tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train_retrieval.py")
    folder = tmp_path / "two"
    command(*torchrun, "--config", root / "config.yaml", f"output_dir={folder}")
    assert_same_losses(folder, root / "run", 1e-5)
    assert results_of(folder)["metrics"] == results_of(root / "run")["metrics"]
    assert results_of(folder)["num_videos"] == 8
