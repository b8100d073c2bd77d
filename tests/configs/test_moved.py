"""A configuration file at the path it had before it was moved is an error that names the new path."""

from pathlib import Path

import pytest

from configs.load import load, load_any
from configs.moved import new_path
from configs.schema import CONFIG_CLASSES, RetrievalConfig

ROOT = Path(__file__).resolve().parents[2]
OLD_PATHS = (
    ("retrieval", "didemo_f32.yaml"),
    ("vqa", "msrvtt_qa_f32.yaml"),
    ("caption", "base.yaml"),
    ("pretrain", "testa_f8.yaml"),
    ("base_f96.yaml",),
)
"""Parts of paths below `configs/` before there was a folder for each system."""


@pytest.mark.parametrize("parts", OLD_PATHS, ids="/".join)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_moved_file_is_named(parts: tuple[str, ...], absolute: bool) -> None:
    configs = ROOT / "configs" if absolute else Path("configs")
    old, new = configs.joinpath(*parts), configs.joinpath("testa", *parts)
    with pytest.raises(ValueError) as error:
        load_any(CONFIG_CLASSES, old, [])
    assert str(error.value) == f"{old}: has moved; use {new}"


@pytest.mark.parametrize(
    "parts",
    [("configs", "testa", "vqa", "never_was.yaml"), ("configs", "vqa", "never_was.yaml"), ("vqa", "testa_qa_f32.yaml")],
    ids="/".join,
)
def test_any_other_missing_file_cannot_be_read(parts: tuple[str, ...]) -> None:
    path = Path(*parts)
    assert new_path(path) is None
    with pytest.raises(ValueError) as error:
        load(RetrievalConfig, path, [])
    assert str(error.value) == f"{path}: cannot be read: No such file or directory"


def test_files_of_today_have_not_moved() -> None:
    paths = sorted((ROOT / "configs").rglob("*.yaml"))
    assert len(paths) > 50 and all(new_path(path.relative_to(ROOT)) is None for path in paths)
