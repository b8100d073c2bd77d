"""What all public datasets have in common."""

from pathlib import Path
from typing import get_args

import pytest

from configs.data import QUESTION_DATASETS, Dataset
from configs.recognition import OPTION_DATASETS, RECOGNITION_DATASETS
from datasets.annotations import public, recognition
from datasets.records import QuestionRecord, VideoTextRecord
from tests.datasets.annotations.folders import error_of

REAL = ("didemo", "activitynet_qa", "condensed_movies")


def test_every_dataset_that_a_config_can_name_has_a_reader() -> None:
    labelled = {*recognition.READERS, "labelled", "ssv2_mc"}
    assert {*public.READERS, *labelled, "manifest"} == set(get_args(Dataset))
    assert labelled == {*RECOGNITION_DATASETS, *OPTION_DATASETS}


@pytest.mark.parametrize("dataset", public.READERS)
def test_an_empty_folder_and_an_unknown_split(tmp_path: Path, dataset: str) -> None:
    for split in ("train", "val", "test"):
        text = error_of(lambda split=split: public.read(dataset, tmp_path, split, tmp_path))
        assert text.startswith(f"data.root: {tmp_path} ") and f" {dataset}'s '{split}'" in text
        assert "docs/DATASETS.md" in text and split[:2] in text
    text = error_of(lambda: public.read(dataset, tmp_path, "dev", tmp_path))
    assert text.startswith(f"data.dataset: {dataset} has no split 'dev'; it has train, val, test")


@pytest.mark.parametrize("dataset", REAL)
def test_real_files_give_records_of_the_datasets_kind_with_absolute_paths(real_data: Path, dataset: str) -> None:
    root = real_data / "annotations" / dataset
    annotations = public.read(dataset, root, "test", Path("videos"))
    kind = QuestionRecord if dataset in QUESTION_DATASETS else VideoTextRecord
    assert {type(record) for record in annotations.records} == {kind}
    assert all(record.video.startswith(f"{Path('videos').absolute()}/") for record in annotations.records)
    assert (annotations.dataset, annotations.split) == (dataset, "test")
    assert "(" in annotations.source and str(root) not in annotations.source


def test_files_may_lie_in_a_folder_annotations(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").symlink_to(real_data / "annotations/didemo")
    annotations = public.read("didemo", tmp_path, "test", tmp_path / "videos")
    assert len(annotations.records) == 1037 and "(annotations/test_data.json)" in annotations.source
