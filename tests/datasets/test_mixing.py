"""Mixtures: how often each row is shown, and that the order follows from (seed, epoch) alone."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image

from datasets.loaders import TrainLoader
from datasets.mixing import Item, Mixture, Source
from datasets.records import VideoTextRecord
from datasets.sampling import generator
from datasets.video_text import VideoTextDataset
from tests.pairs import dataset_of
from tests.videos import grey_steps, write_video

SEED = 7


def data(count: int, folder: Path = Path("/nowhere"), suffix: str = ".jpg", **changes: int) -> VideoTextDataset:
    records = [VideoTextRecord(str(folder / f"{row}{suffix}"), (f"{suffix} {row}",)) for row in range(count)]
    settings = {"num_frames": 2, "image_size": 32, **changes}
    return dataset_of(records, sampling="headtail", seed=SEED, training=True, **settings)


def mixture(*sources: tuple[int, float, int | None], mixing: Literal["sample", "batch"] = "sample") -> Mixture:
    """Of (rows, weight, batch size) each."""
    return Mixture(
        [Source(f"{number}.csv", data(rows), weight, size) for number, (rows, weight, size) in enumerate(sources)],
        mixing,
    )


def steps(of: Mixture, epoch: int, first_step: int = 0, batch_size: int = 4) -> list[list[Item]]:
    return list(of.steps(batch_size, SEED, epoch, first_step))


def shown(of: Mixture, epoch: int) -> Counter[tuple[int, int]]:
    """How often each (source, row) comes in an epoch, with nothing left out."""
    return Counter((item.source, item.row) for step in steps(of, epoch, batch_size=1) for item in step)


def test_an_epoch_shows_each_row_as_often_as_its_weight_says() -> None:
    of = mixture((10, 1.0, None), (4, 3.0, None), (6, 2.5, None), (9, 1 / 3, None))
    assert len(of) == 10 + 12 + 15 + 3
    total: Counter[tuple[int, int]] = Counter()
    for epoch in range(6):
        counts = shown(of, epoch)
        total += counts
        assert {counts[0, row] for row in range(10)} == {1} and {counts[1, row] for row in range(4)} == {3}
        assert [counts[2, row] for row in range(6)].count(3) == 3 and {counts[2, row] for row in range(6)} == {2, 3}
        assert [counts[3, row] for row in range(9)].count(1) == 3
        # Whatever is left over of one epoch is the next one's.
        part = [total[3, row] for row in range(9)]
        assert max(part) - min(part) <= (1 if (epoch + 1) % 3 else 0)
    assert {total[2, row] for row in range(6)} == {15} and {total[3, row] for row in range(9)} == {2}


def test_sources_are_shuffled_together() -> None:
    of = mixture((200, 1.0, None), (200, 1.0, None))
    first, second = steps(of, 0), steps(of, 1)
    assert first != second and steps(of, 0) == first and steps(mixture((200, 1.0, None), (200, 1.0, None)), 0) == first
    mixed = [len({item.source for item in step}) for step in first]
    assert mixed.count(2) > 70  # of 100 batches of 4; by chance 87
    assert list(of.steps(4, SEED + 1, 0, 0)) != first
    draws = [item.draw for step in first for item in step]
    assert sorted(draws) == list(range(400))  # no two samples of an epoch share what is random in them


def test_one_source_is_in_the_order_it_always_was() -> None:
    for epoch in (0, 3):
        order = generator("order", SEED, epoch).permutation(11)
        items = [item for step in steps(mixture((11, 1.0, None)), epoch) for item in step]
        assert items == [Item(epoch, 0, row, row) for row in order[:8].tolist()]


def test_batches_of_one_source_take_turns() -> None:
    of = mixture((40, 1.0, None), (30, 2.0, 6), (20, 0.5, 3), mixing="batch")
    assert of.steps_per_epoch(4) == [10, 10, 3]
    found = steps(of, 0)
    turns = [step[0].source for step in found]
    assert all({item.source for item in step} == {turn} for step, turn in zip(found, turns, strict=True))
    assert [len(step) for step in found] == [(4, 6, 3)[turn] for turn in turns]
    assert Counter(turns) == {0: 10, 1: 10, 2: 3} and turns != sorted(turns)
    assert [step[0].source for step in steps(of, 1)] != turns
    counts = shown_in(found)
    assert {counts[0, row] for row in range(40)} == {1} and {counts[1, row] for row in range(30)} == {2}
    assert len({item.draw for step in found for item in step}) == 40 + 60 + 9


def shown_in(found: list[list[Item]]) -> Counter[tuple[int, int]]:
    return Counter((item.source, item.row) for step in found for item in step)


@pytest.mark.parametrize("mixing", ["sample", "batch"])
def test_from_any_step_on(mixing: Literal["sample", "batch"]) -> None:
    of = mixture((17, 1.5, None), (9, 1.0, None), mixing=mixing)
    whole = steps(of, 2)
    assert len(whole) == sum(of.steps_per_epoch(4)) > 6
    for first in range(len(whole) + 1):
        assert steps(of, 2, first) == whole[first:]


def test_hundreds_of_thousands_of_rows() -> None:
    of = mixture((200_000, 1.0, None), (100_000, 0.25, None))
    counts = shown_in(list(of.steps(1000, SEED, 1, 0)))
    assert set(counts.values()) == {1} and len(counts) == 225_000
    assert sum(source == 1 for source, _ in counts) == 25_000
    # The rows of the next epoch are others.
    assert not {key for key in shown_in(list(of.steps(1000, SEED, 2, 0))) if key[0]} & {key for key in counts if key[0]}


def turns(*sources: tuple[int, float, int | None], epoch_source: int = 0) -> Mixture:
    """Of (rows, weight, batch size) each, one batch of each source after the other."""
    of = mixture(*sources, mixing="batch")
    return Mixture(of.sources, "batch", "turns", epoch_source)


def test_sources_in_turns() -> None:
    """The second source, of 13 rows in batches of 4, ends the epoch; the others go on where they were."""
    of = turns((7, 1.0, 3), (13, 1.0, None), (40, 1.0, 2), epoch_source=1)
    assert of.steps_per_epoch(4) == [3, 3, 3]
    shown_of_first: list[int] = []
    for epoch in range(7):
        found = steps(of, epoch)
        assert [step[0].source for step in found] == [0, 1, 2] * 3
        assert [len(step) for step in found] == [3, 4, 2] * 3
        assert all(len({item.source for item in step}) == 1 for step in found)
        # The epoch's own rows are shown once, but for the last, which fills no batch; no draw comes twice.
        counts = shown_in(found)
        assert [counts[1, row] for row in range(13)].count(1) == 12
        assert len({item.draw for step in found for item in step}) == 9 + 12 + 6
        shown_of_first += sorted(item.row for step in found for item in step if item.source == 0)
    # 63 rows are nine times all seven, whatever the ends of epochs.
    assert Counter(shown_of_first) == dict.fromkeys(range(7), 9)


def test_a_source_that_ends_the_epoch_may_be_shown_more_than_once() -> None:
    of = turns((8, 2.0, None), (5, 1.0, 3))
    found = steps(of, 0)
    assert [step[0].source for step in found] == [0, 1] * 4
    assert {shown_in(found)[0, row] for row in range(8)} == {2}


def test_in_turns_from_any_step_on() -> None:
    of = turns((7, 1.0, 3), (13, 1.0, None), epoch_source=1)
    for epoch in (0, 3):
        whole = steps(of, epoch)
        for first in range(len(whole) + 1):
            assert steps(of, epoch, first) == whole[first:]


def test_a_source_smaller_than_its_batch_is_refused_in_turns() -> None:
    with pytest.raises(ValueError, match="batch_size 6 of 1.csv is more than the 5 training pairs of 1.csv"):
        loader(turns((40, 1.0, None), (5, 1.0, 6)))
    with pytest.raises(ValueError, match="batch_size 6 of 1.csv is more than the 5 training pairs an epoch of 1.csv"):
        loader(turns((40, 1.0, None), (5, 1.0, 6), epoch_source=1))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine videos, the third of which cannot be read, and six images."""
    folder = tmp_path_factory.mktemp("media")
    for row in range(9):
        write_video(folder / f"{row}.mp4", grey_steps(6 + row))
    (folder / "2.mp4").write_text("no video")
    for row in range(6):
        Image.new("RGB", (40, 30), (40 * row, 90, 7)).save(folder / f"{row}.jpg")
    return folder


def both(media: Path, mixing: Literal["sample", "batch"]) -> Mixture:
    own = {"num_frames": 1, "image_size": 16} if mixing == "batch" else {}
    size = 8 if mixing == "batch" else None
    sources = [
        Source("videos.csv", data(9, media, ".mp4"), 2.0),
        Source("images.tsv", data(6, media, ".jpg", **own), 3.0, size),
    ]
    return Mixture(sources, mixing)


LoaderOf = Callable[..., TrainLoader]


def loader(of: Mixture, rank: int = 0, world_size: int = 1, workers: int = 0, **changes: int) -> TrainLoader:
    settings = {"batch_size": 4, "accumulate": 2, "seed": SEED, **changes}
    return TrainLoader(of, rank=rank, world_size=world_size, workers=workers, **settings)


def compared(batch: dict[str, Any]) -> tuple[Any, ...]:
    return batch["clip"].pixels.tolist(), batch["text"], batch["row"].tolist(), batch["failed"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mixing", ["sample", "batch"])
def test_ranks_and_workers_change_nothing(media: Path, mixing: Literal["sample", "batch"], workers: int) -> None:
    of = both(media, mixing)
    alone = list(loader(of).epoch(1, first_step=1))
    ranks = [list(loader(of, rank, 2, workers).epoch(1, first_step=1)) for rank in range(2)]
    assert len(alone) == len(ranks[0]) == len(ranks[1]) == 2 * (loader(of).steps_per_epoch - 1) > 6
    for whole, one, two in zip(alone, *ranks, strict=True):
        halves = [compared(one), compared(two)]
        assert compared(whole) == tuple(first + second for first, second in zip(*halves, strict=True))
    assert any(batch["failed"] for batch in alone)


def test_a_video_shown_again_in_an_epoch_is_sampled_again(media: Path) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    for batch in loader(both(media, "sample")).epoch(0):
        for clip, text in zip(batch["clip"].pixels, batch["text"], strict=True):
            seen.setdefault(text, []).append(clip)
    twice = [clips for text, clips in seen.items() if text.endswith(("6", "7", "8")) and text.startswith(".mp4")]
    assert len(twice) == 3 and any(not torch.equal(clips[0], clips[1]) for clips in twice)


def test_each_batch_has_the_frames_and_pixels_of_its_source(media: Path) -> None:
    train = loader(both(media, "batch"))
    assert train.steps_per_epoch == 18 // 4 + 18 // 8
    shapes = {batch["text"][0][:4]: batch["clip"].pixels.shape for batch in train.epoch(0)}
    assert shapes == {".mp4": (2, 2, 3, 32, 32), ".jpg": (4, 1, 3, 16, 16)}
    named = {batch["text"][0][:4]: batch["source"] for batch in train.epoch(1)}
    assert named == {".mp4": 0, ".jpg": 1}
    assert {batch["source"] for batch in loader(both(media, "sample")).epoch(0)} == {None}


def test_images_among_videos_are_still_clips(media: Path) -> None:
    for batch in loader(both(media, "sample")).epoch(0):
        for clip, text in zip(batch["clip"].pixels, batch["text"], strict=True):
            assert clip.shape == (2, 3, 32, 32)
            assert torch.equal(clip[0], clip[1]) == text.startswith(".jpg")


def test_sizes_that_do_not_go() -> None:
    with pytest.raises(ValueError, match="data.sources: weight 0.1 of 1.csv shows none of its 4 rows"):
        mixture((10, 1.0, None), (4, 0.1, None))
    of = mixture((40, 1.0, None), (10, 1.0, 6), mixing="batch")
    with pytest.raises(
        ValueError, match="data.sources: batch_size 6 of 1.csv is not a multiple of 4, that is train.acc"
    ):
        loader(of, world_size=2)
    with pytest.raises(
        ValueError, match="train.batch_size: 3 is not a multiple of 2, that is train.accumulate 2 times 1"
    ):
        loader(of, batch_size=3)
    of = mixture((40, 1.0, None), (10, 0.5, 6), mixing="batch")
    with pytest.raises(ValueError, match="batch_size 6 of 1.csv is more than the 5 training pairs an epoch of 1.csv"):
        loader(of)
    with pytest.raises(ValueError, match="train.batch_size: 22 is more than the 20 training pairs; make it smaller"):
        loader(mixture((10, 1.0, None), (10, 1.0, None)), batch_size=22)
