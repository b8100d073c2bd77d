"""Every stored case of the reference matches, and the check tells a case that does not from one it does not know."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.parity.check import TOLERANCE, check_case, main

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(GOLDEN.glob("*.safetensors"))


def status_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["check", str(folder)])
    return main()


def changed(case: str, output: str, by: float, folder: Path) -> None:
    """Copy a case into `folder` with one entry of one output off by `by`."""
    with safe_open(GOLDEN / f"{case}.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors[output].view(-1)[-1] += by
    save_file(tensors, folder / f"{case}.safetensors", metadata)


def test_all_kinds_are_there() -> None:
    assert len(CASES) == 14


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case_of_the_reference(path: Path) -> None:
    assert check_case(path) <= TOLERANCE


def test_status_is_0_when_all_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("encoder_joint", "text_towers"):
        shutil.copy(GOLDEN / f"{name}.safetensors", tmp_path)
    assert status_of(tmp_path, monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", "encoder_joint"], ["ok", "text_towers"]]
    assert all(float(line.split()[2]) <= TOLERANCE for line in lines)


@pytest.mark.parametrize(
    ("case", "output", "by"),
    [
        ("encoder_divided_merge_both", "tokens", 1e-3),
        ("text_towers", "decoder_logits", -1e-3),
        ("text_towers", "caption_loss", float("nan")),
        ("vqa", "best_answer", 1),
        ("retrieval_step", "after.ptr_queue", 1),
        ("pretrain_step", "after.text_queue", 1e-3),
    ],
)
def test_status_is_1_for_a_difference(
    case: str,
    output: str,
    by: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(GOLDEN / "encoder_joint.safetensors", tmp_path)
    changed(case, output, by, tmp_path)
    assert status_of(tmp_path, monkeypatch) == 1
    # A failing case does not hide the others.
    assert {line.split()[1]: line.split()[0] for line in capsys.readouterr().out.splitlines()} == {
        "encoder_joint": "ok",
        case: "FAIL",
    }


def test_status_is_2_for_an_unknown_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(GOLDEN / "encoder_joint.safetensors", tmp_path / "decoder_joint.safetensors")
    assert status_of(tmp_path, monkeypatch) == 2
    assert "decoder_joint.safetensors" in capsys.readouterr().out


def test_status_is_2_for_an_output_nothing_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with safe_open(GOLDEN / "encoder_joint.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file({**tensors, "attention_maps": torch.zeros(1)}, tmp_path / "encoder_joint.safetensors", metadata)
    assert status_of(tmp_path, monkeypatch) == 2


def test_status_is_2_without_a_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status_of(tmp_path, monkeypatch) == 2
    assert status_of(tmp_path / "missing", monkeypatch) == 2
