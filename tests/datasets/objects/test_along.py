"""Boxes go along with clips: of the same video, padded, whoever reads it; what lacks boxes is named."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.loaders import TrainLoader, evaluation_loader
from datasets.objects.along import check_boxes, object_extras
from datasets.objects.detections import ClipBoxes
from datasets.objects.store import ObjectSettings, ObjectStore, StoreWriter, clip_name, spellings
from datasets.records import VideoTextRecord
from datasets.sources import open_source
from datasets.video_text import VideoTextDataset
from tests.datasets.shards import write_index, write_tar
from tests.pairs import dataset_of
from tests.videos import grey_steps, write_video

FRAMES, SIZE = 3, 32
SETTINGS = ObjectSettings(FRAMES, 2, SIZE, "squash", "uniform", "a test", {"dog": 4})


def boxes(video: int) -> ClipBoxes:
    """One box a frame, which says of which video it is, and padding."""
    found = np.full((FRAMES, 2, 4), -1, np.float32)
    found[:, 0] = (video, 1, video + 2, 9)
    classes = np.zeros((FRAMES, 2), np.int64)
    classes[:, 0] = video + 1
    return ClipBoxes(found, classes, np.array([video + 1, 0, 0, 0]))


def write_store(path: Path, names: dict[str, int], failed: tuple[str, ...] = ()) -> ObjectStore:
    writer = StoreWriter(path, list(names), SETTINGS)
    for row, (name, video) in enumerate(names.items()):
        if name in failed:
            writer.fail(row)
        else:
            writer.put(row, boxes(video), SIZE)
    writer.finish()
    return ObjectStore(path)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos, the second of which cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        write_video(folder / f"{number}.mp4", grey_steps(4 + number))
    (folder / "1.mp4").write_text("no video")
    return folder


def records_of(videos: Path) -> list[VideoTextRecord]:
    return [VideoTextRecord(str(videos / f"{number}.mp4"), (f"video {number}",)) for number in range(6)]


def dataset(videos: Path, store: ObjectStore, training: bool) -> VideoTextDataset:
    return dataset_of(
        records_of(videos), num_frames=FRAMES, image_size=SIZE, sampling="uniform", seed=1, training=training,
        extras=object_extras(store, str(videos)),
    )  # fmt: skip


def assert_own_boxes(batch: dict) -> None:
    """Each clip of the batch has the boxes of its video, and padding where there are none."""
    extras = batch["clip"].extras
    assert set(extras) == {"boxes", "classes", "trajectory_ids"}
    assert extras["boxes"].shape == (len(batch["names"]), FRAMES, 2, 4) and extras["boxes"].dtype == torch.float32
    for row, name in enumerate(batch["names"]):
        expected = boxes(int(Path(name).stem))
        assert np.abs(extras["boxes"][row].numpy() - expected.boxes).max() < 0.01
        assert np.array_equal(extras["classes"][row], expected.classes)
        assert np.array_equal(extras["trajectory_ids"][row], expected.trajectory_ids)
    assert (extras["boxes"][:, :, 1] == -1).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_each_clip_has_its_own_boxes_whatever_the_batch(tmp_path: Path, videos: Path, workers: int) -> None:
    store = write_store(tmp_path / "a.objects", {f"{number}.mp4": number for number in range(6)})
    for batch_size in (1, 4):
        loader = evaluation_loader(
            dataset(videos, store, training=False), batch_size=batch_size, rank=0, world_size=1, workers=workers
        )
        batches = [batch for batch in loader if batch["clip"] is not None]
        assert sum(len(batch["names"]) for batch in batches) == 5
        for batch in batches:
            assert_own_boxes(batch)


def test_a_replaced_video_brings_its_own_boxes(tmp_path: Path, videos: Path) -> None:
    store = write_store(tmp_path / "a.objects", {str(number): number for number in range(6)}, failed=("2",))
    data = dataset(videos, store, training=True)
    loader = TrainLoader(data, batch_size=6, accumulate=1, seed=1, rank=0, world_size=1, workers=0)
    (batch,) = loader.epoch(0)
    assert_own_boxes(batch)
    # The file that cannot be read, and the one without boxes, gave way to others.
    assert {Path(failure["video"]).stem for failure in batch["failed"]} == {"1", "2"}
    assert any("boxes" in failure["reason"] for failure in batch["failed"])
    assert not {"1", "2"} & {Path(name).stem for name in batch["names"]}


def test_videos_in_shards_have_boxes_by_their_names(tmp_path: Path, videos: Path) -> None:
    members = []
    for number in (0, 2, 3):
        members += [(f"{number}.mp4", (videos / f"{number}.mp4").read_bytes()), (f"{number}.txt", f"video {number}")]
    write_tar(tmp_path / "a.tar", *members)
    table = open_source(write_index(tmp_path, a=3), tmp_path)
    store = write_store(tmp_path / "a.objects", {"0": 0, "2": 2, "3": 3})
    check_boxes(store, table, str(tmp_path))
    data = dataset_of(
        table, num_frames=FRAMES, image_size=SIZE, sampling="uniform", seed=1, training=True,
        extras=object_extras(store, str(tmp_path)),
    )  # fmt: skip
    loader = TrainLoader(data, batch_size=3, accumulate=1, seed=1, rank=0, world_size=1, workers=0)
    for batch in loader.epoch(0):
        assert_own_boxes(batch)


def test_a_clip_that_the_file_lacks_is_named(tmp_path: Path, videos: Path) -> None:
    store = write_store(tmp_path / "a.objects", {"0": 0, "1": 1, "2": 2})
    data = dataset(videos, store, training=False)
    message = r"a\.objects: has no entry 3\.mp4; prepare its boxes with `python -m scripts\.prepare_objects`"
    with pytest.raises(ValueError, match=message):
        check_boxes(store, data.table, str(videos))
    with pytest.raises(ValueError, match=message):
        data[3]


def test_parts_of_a_video_are_clips_of_their_own(tmp_path: Path, videos: Path) -> None:
    names = {clip_name("5.mp4", 0.1, 0.5): 0, clip_name("5", 0.2, None): 2}
    store = write_store(tmp_path / "a.objects", names)
    path = str(videos / "5.mp4")
    records = [
        VideoTextRecord(path, ("a",), 0.1, 0.5),
        VideoTextRecord(path, ("b",), 0.2),
        VideoTextRecord(path, ("c",)),
    ]
    table = dataset_of(
        records, num_frames=FRAMES, image_size=SIZE, sampling="uniform", seed=1, training=False,
        extras=object_extras(store, str(videos)),
    )  # fmt: skip
    assert table[0].clip.extras["classes"][0, 0] == 1 and table[1].clip.extras["classes"][0, 0] == 3
    with pytest.raises(ValueError, match=r"has no entry 5\.mp4;"):
        table[2]
    assert list(spellings("a/b.mp4[1,2]")) == ["a/b.mp4[1,2]", "a/b[1,2]", "b.mp4[1,2]", "b[1,2]"]


def test_a_store_is_pickled_as_its_path(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.objects", {"größe": 3})
    pickled = pickle.dumps(store)
    assert len(pickled) < 500
    assert np.array_equal(pickle.loads(pickled)["größe"].classes, boxes(3).classes)
