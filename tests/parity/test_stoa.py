"""Every stored case of STOA-VLP's reference matches, and what it pins is really compared."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.parity import stoa
from tests.parity.cases import read_case
from tests.parity.check import TOLERANCE, check_case

GOLDEN = Path(__file__).parent / "golden" / "stoa"
CASES = sorted(GOLDEN.glob("*.safetensors"))


def test_all_cases_are_there() -> None:
    assert len(CASES) == 27


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case_of_the_reference(path: Path) -> None:
    assert check_case(path) <= TOLERANCE


@pytest.mark.parametrize("name", ["total", "retrieval_loss", "caption_loss", "qa"])
def test_losses_reach_no_parameter_that_the_reference_leaves_alone(name: str) -> None:
    case = read_case(GOLDEN / f"stoa_{name}.safetensors")
    found = stoa.KINDS[case.name](case.tensors, case.meta)
    reached = {output for output in found if output.startswith("grad_norm_")}
    assert reached == {output for output in case.tensors if output.startswith("grad_norm_")}


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("objects", "object_tokens"),
        ("match", "fixed.action_match"),
        ("detections_many", "trajectory_ids"),
        ("retrieval_rerank", "v2t_rank"),
        ("optimizer", "after.fusion"),
    ],
)
def test_a_changed_output_is_found(name: str, output: str, tmp_path: Path) -> None:
    with safe_open(GOLDEN / f"stoa_{name}.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    changed = tensors[output].clone()
    changed.view(-1)[0] += 1 if not torch.is_floating_point(changed) else 1e-3
    path = tmp_path / f"stoa_{name}.safetensors"
    save_file({**tensors, output: changed}, path, metadata)
    assert check_case(path) > TOLERANCE
