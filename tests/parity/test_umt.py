"""Every stored case of vid-TLDR matches: computed once with its public code on random weights."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.parity.check import TOLERANCE, check_case

GOLDEN = Path(__file__).parent / "golden" / "umt"
CASES = sorted(GOLDEN.glob("*.safetensors"))


def test_all_kinds_are_there() -> None:
    assert len(CASES) == 28


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case_of_the_reference(path: Path) -> None:
    assert check_case(path) <= TOLERANCE


@pytest.mark.parametrize(
    ("case", "output"),
    [
        ("umt_encoder_vidtldr_ints", "saliency.2"),
        ("umt_merge_sized", "landed"),
        ("umt_retrieval_single", "scores_t2i"),
        ("umt_train_step_vidtldr", "grad.temp"),
        ("umt_qa", "topk_ids"),
    ],
)
def test_a_difference_is_seen(case: str, output: str, tmp_path: Path) -> None:
    with safe_open(GOLDEN / f"{case}.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors[output] = tensors[output] + torch.ones((), dtype=tensors[output].dtype)
    save_file(tensors, tmp_path / f"{case}.safetensors", metadata)
    assert check_case(tmp_path / f"{case}.safetensors") > TOLERANCE
