"""Every stored case of TVTSv2's reference matches, and what it pins is really compared."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.parity.check import TOLERANCE, check_case

GOLDEN = Path(__file__).parent / "golden" / "tvts"
CASES = sorted(GOLDEN.glob("*.safetensors"))
NEED_VOCABULARY = ("tvts_tokens", "tvts_recognition_prompt", "tvts_recognition_templates")


def needs_vocabulary(path: Path) -> pytest.MarkDecorator | tuple[()]:
    missing = path.stem in NEED_VOCABULARY and "REAL_DATA" not in os.environ
    return pytest.mark.skipif(missing, reason="REAL_DATA names no folder with CLIP's vocabulary")


def test_all_cases_are_there() -> None:
    assert len(CASES) == 29


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=needs_vocabulary(path)) for path in CASES], ids=lambda path: path.stem
)
def test_case_of_the_reference(path: Path) -> None:
    assert check_case(path) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "output", "by"),
    [
        ("video_h_tube", "patch_tokens", 1e-3),
        ("clip_equal_b", "image_embeds", 1e-3),
        ("pretrain_step_b", "yt.grad_norm_sort_only", 1e-2),
        ("retrieval_metrics_captions", "v2t", 0.1),
        ("frames", "pretrain_highest", 1),
        ("transform_wide", "feature_extraction", 1e-2),
        ("asr_plain", "word_clip", 1),
    ],
)
def test_a_changed_output_is_found(name: str, output: str, by: float, tmp_path: Path) -> None:
    with safe_open(GOLDEN / f"tvts_{name}.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    tensors[output].view(-1)[-1] += by
    save_file(tensors, tmp_path / f"tvts_{name}.safetensors", metadata)
    assert check_case(tmp_path / f"tvts_{name}.safetensors") > TOLERANCE


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("text_b", ("frozen", 0), "text_projection"),
        ("pretrain_step_b", ("parameter_groups", 0, "lr"), 1e-3),
        ("pretrain_step_h", ("no_gradient", "yt_sort_only", 0), "video_model.proj"),
        ("asr_longer", ("expected", "aligned", 1), "here"),
        ("asr_short", ("fallback",), False),
        ("retrieval_metrics_missed", ("printed", 0), "R@1: 1.0"),
        ("recognition_mc", ("printed", 0), "Top-1 accuracy: 45.84"),
        ("video_b_tube", ("kept_patches",), 7),
    ],
)
def test_a_changed_fact_is_found(name: str, keys: tuple[str | int, ...], value: object, tmp_path: Path) -> None:
    with safe_open(GOLDEN / f"tvts_{name}.safetensors", "pt") as file:
        meta, tensors = json.loads(file.metadata()["meta"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    held = meta
    for key in keys[:-1]:
        held = held[key]
    assert held[keys[-1]] != value
    held[keys[-1]] = value
    save_file(tensors, tmp_path / f"tvts_{name}.safetensors", {"meta": json.dumps(meta)})
    assert check_case(tmp_path / f"tvts_{name}.safetensors") == torch.inf
