"""What the plan counts: exactly what is known by formula, and within 15 % what a real step takes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.plan_memory.step import META, Need, count, make_task
from tests.scripts.plan_memory.measured import CPU, peak_of_step
from tests.tiny_runs import config as tiny_config

ROWS, TOKENS, SHARE = 6, 12, 0.15
TEXT = {
    "tokenizer": "from_data", "vocab_size": 300, "depth": 2, "width": 64, "heads": 2, "intermediate": 128,
    "max_positions": 24, "dropout": 0.0,
}  # fmt: skip
SECTIONS: dict[str, Any] = {
    "model": {"depth": 3, "width": 64, "heads": 2, "embed_dim": 16, "text": TEXT},
    "video": {"num_frames": 8, "image_size": 64},
    "train": {"precision": "fp32", "batch_size": ROWS},
}
MERGING = {"reducer": "geometry", "frames_per_block": 1, "patches_per_block": 4}
PLAIN = {"reducer": "none", "frames_per_block": 0, "patches_per_block": 0}
WAYS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("retrieval", PLAIN, {}),
    "aggregation": ("retrieval", MERGING, {}),
    "recompute": ("retrieval", PLAIN, {"activation_checkpointing": "recompute"}),
    "accumulate": ("retrieval", MERGING, {"accumulate": 2, "batch_size": 2 * ROWS}),
    "bf16": ("retrieval", MERGING, {"precision": "bf16"}),
    "pretrain": ("pretrain", MERGING, {}),
    "vqa": ("vqa", MERGING, {}),
    "caption": ("caption", PLAIN, {"activation_checkpointing": "recompute"}),
}


def configured(root: Path, task: str, merging: Any, train: dict[str, Any], text: Any = None, **video: Any) -> Any:
    """A small configuration whose activations outweigh its weights; of no data."""
    model = {**SECTIONS["model"], "text": {**TEXT, **(text or {})}}
    sections = {
        "model": model,
        "video": {**SECTIONS["video"], **video},
        "train": {**SECTIONS["train"], **train},
        "aggregation": merging,
    }
    return tiny_config(task, root, **sections)


def counted(config: Any, processes: int = 1) -> Need:
    return count(config, ROWS, processes, TOKENS, block=1)


@pytest.mark.parametrize("way", WAYS)
def test_a_real_step_takes_what_is_planned(way: str, tmp_path: Path) -> None:
    config = configured(tmp_path, *WAYS[way])
    need = counted(config)
    planned = need.total - need.between_steps
    measured = peak_of_step(config, ROWS, TOKENS, tmp_path)
    assert abs(planned - measured) <= SHARE * measured, f"planned {planned}, measured {measured}"


def test_what_is_kept_between_steps_is_counted_exactly(tmp_path: Path) -> None:
    config = configured(tmp_path, "pretrain", MERGING, {})
    need, task = counted(config), make_task(config, made_on=META, device=CPU)
    twin, queue = task.objectives.twin, task.objectives.queue
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    of_twin = 4 * sum(parameter.numel() for parameter in twin.parameters())
    assert need.at_peak["parameters"] == 4 * sum(parameter.numel() for parameter in task.parameters()) - of_twin
    assert need.at_peak["twin"] == of_twin
    assert need.at_peak["optimizer"] == 8 * sum(parameter.numel() for parameter in trained) + 4 * len(trained)
    assert need.at_peak["queue"] == len(queue.index) * (2 * 4 * 16 + 8) + 8
    assert need.at_peak["inputs"] == ROWS * (8 * 3 * 64 * 64 + 8 * 8 + 8)
    kept = ("parameters", "twin", "optimizer", "queue", "inputs")
    assert need.between_steps == sum(need.at_peak[kind] for kind in kept)


def test_what_saves_takes_less_and_what_is_more_takes_more(tmp_path: Path) -> None:
    plain = counted(configured(tmp_path, "retrieval", PLAIN, {})).total
    merged = counted(configured(tmp_path, "retrieval", MERGING, {})).total
    recomputed = counted(configured(tmp_path, "retrieval", PLAIN, {"activation_checkpointing": "recompute"})).total
    longer = counted(configured(tmp_path, "retrieval", PLAIN, {}, num_frames=16)).total
    halved = counted(configured(tmp_path, "retrieval", PLAIN, {"precision": "bf16"})).total
    assert recomputed < merged < plain < longer
    assert halved < plain


def test_each_of_several_processes_has_the_others_keys_and_buckets(tmp_path: Path) -> None:
    config = configured(tmp_path, "pretrain", PLAIN, {})
    alone, one_of_four = counted(config), counted(config, processes=4)
    task = make_task(config, made_on=META, device=CPU)
    trained = sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)
    assert (alone.buckets, one_of_four.buckets) == (0, 4 * trained)
    assert one_of_four.total - one_of_four.buckets > alone.total, "keys and negatives of all processes"
    assert not torch.distributed.is_initialized()


def test_dropout_in_attention_keeps_no_score_as_on_a_gpu(tmp_path: Path) -> None:
    """A CPU keeps a byte a score, of which there are more than anything else here."""
    text = {"heads": 32}
    without = counted(configured(tmp_path, "caption", PLAIN, {}, text))
    dropped = counted(configured(tmp_path, "caption", PLAIN, {}, {**text, "dropout": 0.1}))
    scores = 2 * ROWS * 32 * (TOKENS - 1) * 8 * 16
    assert dropped.at_peak["activations"] - without.at_peak["activations"] < scores / 2
