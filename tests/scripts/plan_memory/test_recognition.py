"""Recognition is planned: a step of fine-tuning as a real one takes it, and of a probe what encoding takes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from configs.load import from_dict, load
from configs.schema import RecognitionConfig
from scripts.plan_memory.__main__ import plan, rows_a_process
from scripts.plan_memory.step import META, batch_of, count, make_task
from tasks.clips import encode_clip
from tests.scripts.plan_memory.measured import CPU, peak_of, peak_of_step
from tests.scripts.plan_memory.test_step import MERGING, PLAIN, ROWS, SHARE, TOKENS, counted
from tests.test_layout import ROOT

TVTS = {
    "name": "tvts", "depth": 3, "width": 64, "heads": 2, "patch_size": 16, "embed_dim": 16, "sort_heads": 2,
    "text": {
        "tokenizer": "from_data", "vocab_size": 560, "depth": 2, "width": 16, "heads": 2, "max_positions": 24,
        "trained_blocks": 1,
    },
}  # fmt: skip


def configured(merging: dict[str, Any], **sections: Any) -> RecognitionConfig:
    settings = {
        "task": "recognition",
        "model": TVTS,
        "video": {"num_frames": 8, "image_size": 64},
        "data": {"root": "nowhere", "dataset": "labelled"},
        "train": {"precision": "fp32", "batch_size": ROWS, "max_epochs": 1},
        "evaluation": {"batch_size": ROWS, "prompt_file": "nowhere.md#UCF101"},
        "aggregation": merging,
        **sections,
    }
    return from_dict(RecognitionConfig, settings, "test")


@pytest.mark.parametrize("merging", [PLAIN, MERGING])
def test_a_real_step_takes_what_is_planned(merging: dict[str, Any], tmp_path: Path) -> None:
    config = configured(merging)
    need = counted(config)
    measured = peak_of_step(config, ROWS, TOKENS, tmp_path)
    planned = need.total - need.between_steps
    assert abs(planned - measured) <= SHARE * measured, f"planned {planned}, measured {measured}"
    assert [column.name for column in plan(config, 1, None, None)][:2] == ["none", "recompute"]


def test_a_probe_takes_what_encoding_takes_and_has_no_gradients(tmp_path: Path) -> None:
    config = configured(PLAIN, objective={"name": "probe"})
    need = count(config, ROWS, 8, TOKENS, block=1)
    task = make_task(config, made_on=CPU, device=CPU).eval()
    clip = batch_of(config, ROWS, TOKENS)["clip"]
    with torch.no_grad():
        measured = peak_of(lambda: encode_clip(task.model, clip), tmp_path)
    planned = need.total - need.between_steps
    assert abs(planned - measured) <= SHARE * measured, f"planned {planned}, measured {measured}"
    assert not {"gradients", "optimizer"} & need.at_peak.keys() and need.buckets == 0
    weights = make_task(config, made_on=META, device=CPU).parameters()
    assert need.at_peak["parameters"] == 4 * sum(parameter.numel() for parameter in weights)
    assert need.total < counted(configured(PLAIN)).total

    merged = configured(MERGING, objective={"name": "probe"})
    assert [column.name for column in plan(merged, 3, None, None)] == ["none", "aggregation"]


def test_published_probes_and_options_are_planned_by_the_batch_of_evaluation() -> None:
    folder = ROOT / "configs" / "tvts" / "recognition"
    for name in ("probe_hmdb51_b16", "ssv2_mc_b32"):
        config = load(RecognitionConfig, folder / f"{name}.yaml", ["evaluation.batch_size=5"])
        assert rows_a_process(config, 2) == 5
        columns = plan(config, 2, None, None)
        assert [(column.name, column.configured) for column in columns] == [("none", True)]
    with pytest.raises(ValueError, match="--text-tokens: has no effect on recognition"):
        plan(config, 1, 12, None)
