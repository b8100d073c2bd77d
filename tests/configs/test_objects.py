"""Boxes that go along with clips fix frames and pixels, and ask for a model that reads them."""

from dataclasses import dataclass
from typing import Any

import pytest

from configs.data import DataConfig, SourceConfig
from configs.load import from_dict
from configs.model import VideoConfig
from configs.models.testa import TestaConfig
from configs.objects import check_objects
from configs.schema import RetrievalConfig


@dataclass(frozen=True, kw_only=True)
class WithObjects(TestaConfig):
    reads_objects = True  # type: ignore[assignment]


VIDEO: dict[str, Any] = {"fit": "crop", "interpolation": "bicubic", "resize": 224}


def test_frames_and_crop_are_fixed_where_boxes_go_along() -> None:
    data = DataConfig(root=".", objects="a.objects")
    check_objects(data, VideoConfig(train_sampling="per_second", eval_sampling="per_second", **VIDEO), WithObjects())
    check_objects(DataConfig(root="."), VideoConfig(augment=True, train_sampling="random"), TestaConfig())
    refused = (
        ({**VIDEO, "resize": 256}, r"^video\.resize: .*set it to video\.image_size, 224"),
        ({"augment": True}, r"^video\.augment: .*set it to false"),
        ({"train_sampling": "random"}, r"^video\.train_sampling: .*make it equal to video\.eval_sampling, uniform"),
    )
    for video, message in refused:
        with pytest.raises(ValueError, match=message):
            check_objects(data, VideoConfig(**video), WithObjects())
    sources = DataConfig(
        root=".", objects="a.objects", mixing="batch", sources=(SourceConfig(file="a.jsonl", num_frames=8),)
    )
    with pytest.raises(ValueError, match=r"^data\.sources\[0\]\.num_frames: .*remove it with data\.objects"):
        check_objects(sources, VideoConfig(), WithObjects())


def test_boxes_go_with_models_that_read_them() -> None:
    with pytest.raises(ValueError, match=r"^data\.objects: .*prepare_objects.*set model\.objects=none"):
        check_objects(DataConfig(root="."), VideoConfig(), WithObjects())
    with pytest.raises(ValueError, match=r"^data\.objects: this model has no use for boxes"):
        check_objects(DataConfig(root=".", objects="a.objects"), VideoConfig(), TestaConfig())


def test_tags_are_for_tasks_that_read_them_and_for_texts_as_they_are_written() -> None:
    base: dict[str, Any] = {"optim": {"lr": 1e-3}, "train": {"batch_size": 2, "max_epochs": 1}}
    with pytest.raises(ValueError, match=r"data\.tags: has no effect on retrieval"):
        from_dict(RetrievalConfig, {**base, "data": {"root": ".", "tags": "a.tags", "clean_up": "none"}}, "a file")
    with pytest.raises(ValueError, match=r"data\.tags: .*set data\.clean_up=none"):
        DataConfig(root=".", tags="a.tags")
