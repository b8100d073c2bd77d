"""Batches: the same for any number of workers and ranks, and from any step on."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.loaders import TrainLoader, evaluation_loader
from datasets.records import VideoTextRecord
from datasets.samples import Clip
from datasets.video_text import VideoTextDataset
from tests.pairs import dataset_of
from tests.videos import grey_steps, write_video


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[VideoTextRecord]:
    """Ten videos, the fourth of which cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [write_video(folder / f"{number}.mp4", grey_steps(8 + number)) for number in range(10)]
    paths[3].write_text("no video")
    return [VideoTextRecord(str(path), (f"video {number}", f"again {number}")) for number, path in enumerate(paths)]


def dataset(records: list[VideoTextRecord], **changes: Any) -> VideoTextDataset:
    settings: dict[str, Any] = {"num_frames": 3, "image_size": 32, "sampling": "headtail", "seed": 1, "training": True}
    return dataset_of(records, **{**settings, **changes})


def loader(data: VideoTextDataset, rank: int = 0, world_size: int = 1, workers: int = 0, **changes: int) -> TrainLoader:
    settings = {"batch_size": 8, "accumulate": 2, "seed": 1, **changes}
    return TrainLoader(data, rank=rank, world_size=world_size, workers=workers, **settings)


def assert_same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["clip"].pixels, other["clip"].pixels) and torch.equal(one["index"], other["index"])
        assert one["text"] == other["text"] and one["failed"] == other["failed"]


def joined(ranks: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The batches of all ranks, those of the same moment one after the other."""
    return [
        {
            "clip": Clip.of_pixels(torch.cat([batch["clip"].pixels for batch in batches])),
            "index": torch.cat([batch["index"] for batch in batches]),
            "text": [text for batch in batches for text in batch["text"]],
            "failed": [failure for batch in batches for failure in batch["failed"]],
        }
        for batches in zip(*ranks, strict=True)
    ]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_ranks_and_workers_change_nothing(records: list[VideoTextRecord], world_size: int, workers: int) -> None:
    data = dataset(records, augment="operations", resize=40)
    reference = loader(data)
    ranks = [loader(data, rank, world_size, workers) for rank in range(world_size)]
    for epoch in (0, 1):
        assert_same(joined([list(own.epoch(epoch)) for own in ranks]), list(reference.epoch(epoch)))


def test_an_epoch_is_a_permutation_of_all_pairs_but_the_last_few(records: list[VideoTextRecord]) -> None:
    train = loader(dataset(records))
    texts = [[text for batch in train.epoch(epoch) for text in batch["text"]] for epoch in (0, 1)]
    assert train.steps_per_epoch == 2 and [len(epoch) for epoch in texts] == [16, 16]
    assert texts[0] != texts[1]
    good = [text for text in texts[0] if text not in ("video 3", "again 3")]
    assert len(good) == 16  # the unreadable video is replaced
    order = [item.row for batch in train._batches.after(0) for item in batch]
    assert len(set(order)) == 16 and set(order) < set(range(20))


def test_accumulation_cuts_the_same_batch(records: list[VideoTextRecord]) -> None:
    data = dataset(records)
    whole = list(loader(data, accumulate=1).epoch(0))
    cut = list(loader(data, accumulate=4).epoch(0))
    assert [batch["text"] for batch in whole] == [sum((batch["text"] for batch in cut[s : s + 4]), []) for s in (0, 4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_from_the_middle_of_an_epoch(records: list[VideoTextRecord], workers: int) -> None:
    train = loader(dataset(records), workers=workers)
    whole = list(train.epoch(4))
    assert_same(list(train.epoch(4, first_step=1)), whole[2:])
    assert list(train.epoch(4, first_step=2)) == []
    # An epoch that is left early does not show in the next.
    next(train.epoch(3))
    assert_same(list(train.epoch(4)), whole)


def test_torch_generator_is_left_alone(records: list[VideoTextRecord]) -> None:
    before = torch.get_rng_state()
    for batches in (loader(dataset(records)).epoch(0), iter(evaluate(records, 0, 1, 0))):
        next(batches)
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_live_on(records: list[VideoTextRecord]) -> None:
    train = loader(dataset(records), workers=1)
    list(train.epoch(0))
    first = processes(train)
    list(train.epoch(1))
    assert processes(train) == first and first != [os.getpid()]


def processes(train: TrainLoader) -> list[int]:
    return [reading.process for reading in train._loader._board.readings()]


def test_workers_share_the_cache(records: list[VideoTextRecord]) -> None:
    data = dataset(records, sampling="uniform", cache_bytes=10**6)
    plain = list(loader(dataset(records, sampling="uniform")).epoch(0))
    assert_same(list(loader(data, workers=2).epoch(0)), plain)
    seen = {int(index) for batch in plain for index in batch["index"]}
    assert set(data._cache.filled.nonzero().flatten().tolist()) >= seen  # type: ignore[union-attr]
    assert not data._cache.filled[3]  # type: ignore[union-attr]
    for batch in plain:
        for index, video in zip(batch["index"], batch["clip"].pixels, strict=True):
            assert torch.equal(data._cache.clips[index], video)  # type: ignore[union-attr]


def test_sizes_that_do_not_go(records: list[VideoTextRecord]) -> None:
    data = dataset(records)
    with pytest.raises(
        ValueError, match=r"train.batch_size: 8 is not a multiple of 6, .*accumulate 3 times 2 processes"
    ):
        loader(data, world_size=2, accumulate=3)
    with pytest.raises(ValueError, match="train.batch_size: 22 is more than the 20 training pairs"):
        loader(data, batch_size=22)


def test_a_failing_worker_names_the_file(tmp_path: Path) -> None:
    data = dataset([VideoTextRecord(str(tmp_path / "gone.mp4"), ("x",))])
    with pytest.raises(ValueError, match=r"gone.mp4 \(no such file\)"):
        list(loader(data, workers=1, batch_size=1, accumulate=1).epoch(0))


def evaluate(records: list[VideoTextRecord], rank: int, world_size: int, workers: int) -> Any:
    data = dataset(records, training=False, sampling="uniform")
    return evaluation_loader(data, batch_size=4, rank=rank, world_size=world_size, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluation_sees_every_video_once(records: list[VideoTextRecord], world_size: int, workers: int) -> None:
    data = dataset(records, training=False, sampling="uniform")
    seen = {}
    failed = []
    for rank in range(world_size):
        own = [int(index) for batch in evaluate(records, rank, world_size, workers) for index in batch["index"]]
        assert own == [index for index in range(rank, 10, world_size) if index != 3]
        for batch in evaluate(records, rank, world_size, workers):
            failed += batch["failed"]
            seen |= dict(zip(batch["index"].tolist(), batch["clip"].pixels, strict=True))
    assert sorted(seen) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert [failure["video"] for failure in failed] == [records[3].video]
    for index, video in seen.items():
        assert torch.equal(video, data[index].clip.pixels)


def test_a_rank_without_a_video(records: list[VideoTextRecord]) -> None:
    assert list(evaluate(records[:2], 2, 3, 0)) == []
