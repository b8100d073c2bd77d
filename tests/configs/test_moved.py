"""A configuration file at the path it had before it was moved is an error that names the new path."""

from pathlib import Path

import pytest

from configs.load import load, load_any
from configs.moved import new_path
from configs.schema import CONFIG_CLASSES, RetrievalConfig


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("configs/testa/retrieval/didemo_f32.yaml", "configs/testa/retrieval/didemo_f32.yaml"),
        ("configs/testa/vqa/msrvtt_qa_f32.yaml", "configs/testa/vqa/msrvtt_qa_f32.yaml"),
        ("configs/testa/caption/base.yaml", "configs/testa/caption/base.yaml"),
        ("configs/testa/pretrain/testa_f8.yaml", "configs/testa/pretrain/testa_f8.yaml"),
        ("configs/testa/base_f96.yaml", "configs/testa/base_f96.yaml"),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_moved_file_is_named(old: str, new: str, absolute: bool) -> None:
    root = Path(__file__).resolve().parents[2] if absolute else Path()
    with pytest.raises(ValueError) as error:
        load_any(CONFIG_CLASSES, root / old, [])
    assert str(error.value) == f"{root / old}: has moved; use {root / new}"


@pytest.mark.parametrize(
    "path",
    ["configs/testa/retrieval/never_was.yaml", "configs/testa/retrieval/never_was.yaml", "retrieval/didemo_f32.yaml"],
)
def test_any_other_missing_file_cannot_be_read(path: str) -> None:
    assert new_path(Path(path)) is None
    with pytest.raises(ValueError) as error:
        load(RetrievalConfig, Path(path), [])
    assert str(error.value) == f"{path}: cannot be read: No such file or directory"


def test_files_of_today_have_not_moved() -> None:
    root = Path(__file__).resolve().parents[2]
    assert all(new_path(path.relative_to(root)) is None for path in (root / "configs").rglob("*.yaml"))
