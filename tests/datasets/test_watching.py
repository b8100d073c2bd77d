"""Workers that hang or die: what they were to read others read, or it is named and left out; nothing else changes."""

import gc
import logging
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data._utils import signal_handling

from datasets import watching
from datasets.framing import Framing
from datasets.loaders import TrainLoader, evaluation_loader
from datasets.mixing import Mixture, Source
from datasets.pairs import PairTable
from datasets.reading import Progress
from datasets.records import VideoTextRecord
from datasets.samples import collate
from datasets.video_text import VideoTextDataset
from datasets.watching import WatchedLoader
from tests.datasets.test_loaders import assert_same, joined, processes

HUNG = "not read within 5 seconds"
DIED = "a second worker process died while reading it"
PATIENT = 60.0
"""A time that nothing takes here."""


class Troubled(VideoTextDataset):
    """Reading a file named `deadly` ends the process; one named `once` only as long as `once.tried` is not there."""

    def _read(self, video: int, epoch: int, draw: int) -> tuple[Tensor, Tensor]:
        path = Path(self.table.path(video))
        name, tried = path.stem, path.with_suffix(".tried")
        if name == "deadly" or (name == "once" and not tried.exists()):
            tried.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._read(video, epoch, draw)


@pytest.fixture(autouse=True)
def polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.2)


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    before = {child.pid for child in multiprocessing.active_children()}
    yield
    gc.collect()  # errors that a test expects hold on to iterators
    assert {child.pid for child in multiprocessing.active_children()} <= before


def images(folder: Path, count: int, *special: str) -> list[VideoTextRecord]:
    """That many images and those with special names; `pipe` is a pipe, which whoever opens it waits at for ever."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}.png" for name in [*range(count), *special]]
    for number, path in enumerate(paths):
        Image.new("RGB", (32, 32), (20 * number, 90, 7)).save(path)
        if path.stem == "pipe":
            path.unlink()
            os.mkfifo(path)
    return [VideoTextRecord(str(path), (f"of {path.stem}", f"again {path.stem}")) for path in paths]


def dataset(records: list[VideoTextRecord], **changes: Any) -> Troubled:
    settings: dict[str, Any] = {
        "num_frames": 2,
        "framing": Framing(16),
        "sampling": "headtail",
        "seed": 3,
        "training": True,
    }
    return Troubled(PairTable.of(records), **{**settings, "training": True, **changes})


def loader(
    data: VideoTextDataset | Mixture, workers: int = 2, rank: int = 0, world_size: int = 1, **changes: Any
) -> TrainLoader:
    settings = {"batch_size": 4, "accumulate": 1, "seed": 3, "sample_timeout": PATIENT, **changes}
    return TrainLoader(data, rank=rank, world_size=world_size, workers=workers, **settings)


def undisturbed(records: list[VideoTextRecord], reasons: dict[str, str], epoch: int) -> list[dict[str, Any]]:
    """The batches of a process that has known from the beginning what is to be left out."""
    data = dataset(records)
    assert not reasons or data.exclude(reasons)
    for record in records:
        Path(record.video).with_suffix(".tried").touch()
    return list(loader(data, workers=0).epoch(epoch))


def named(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [failure for batch in batches for failure in batch["failed"]]


@pytest.mark.parametrize("special", ["pipe", "deadly"])
def test_what_ends_its_reader_is_named_and_replaced(
    tmp_path: Path, special: str, caplog: pytest.LogCaptureFixture
) -> None:
    records = images(tmp_path, 7, special)
    path, reason = records[-1].video, HUNG if special == "pipe" else DIED
    train = loader(dataset(records), sample_timeout=5.0 if special == "pipe" else PATIENT)
    before = torch.get_rng_state()
    with caplog.at_level(logging.ERROR, "datasets"):
        first = list(train.epoch(0))
        if special == "pipe":  # now an image: if it were opened again, it would be read
            os.unlink(path)
            shutil.copy(records[0].video, path)
        second = list(train.epoch(1))
    assert torch.equal(torch.get_rng_state(), before)
    for epoch, batches in enumerate((first, second)):
        assert_same(batches, undisturbed(records, {path: reason}, epoch))
        # Of two texts, so it would have come twice.
        assert named(batches) == [{"video": path, "reason": reason, "excluded": True}] * 2
        assert all(path not in batch["names"] and len(batch["names"]) == 4 for batch in batches)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (1 if special == "pipe" else 2) and (special == "pipe" or f"reading {path}, which" in said[0])
    assert said[-1] == f"{path}: {reason}; it is left out from now on"


def test_a_video_whose_reader_died_once_is_read_by_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = images(tmp_path, 7, "once")
    with caplog.at_level(logging.ERROR, "datasets"):
        batches = list(loader(dataset(records)).epoch(0))
    assert_same(batches, undisturbed(records, {}, 0))
    assert named(batches) == [] and sum(batch["names"].count(records[-1].video) for batch in batches) == 2
    assert len(caplog.records) == 1 and records[-1].video in caplog.records[0].getMessage()


def test_evaluation_goes_on_without_what_hangs_or_kills(tmp_path: Path) -> None:
    records = images(tmp_path, 6, "pipe", "deadly")
    data = dataset(records, training=False, sampling="uniform")
    batches = evaluation_loader(data, batch_size=2, rank=0, world_size=1, workers=2, sample_timeout=5.0)
    assert len(batches) == 4
    for _ in range(2):
        seen = list(batches)
        assert [batch["index"].tolist() for batch in seen] == [[0, 1], [2, 3], [4, 5], []]
        assert seen[3]["clip"] is None and seen[3]["names"] == []
        assert named(seen) == [
            {"video": record.video, "reason": reason, "excluded": True}
            for record, reason in zip(records[6:], (HUNG, DIED), strict=True)
        ]
    # On a rank that has none of the two nothing is said.
    other = evaluation_loader(data, batch_size=8, rank=0, world_size=2, workers=1, sample_timeout=PATIENT)
    assert [batch["index"].tolist() for batch in other] == [[0, 2, 4]]


class Slow(VideoTextDataset):
    """Reading takes long, but frame after frame comes; of a file named `pipe` none does after the second."""

    def _read(self, video: int, epoch: int, draw: int) -> tuple[Tensor, Tensor]:
        beat = self._beat
        assert beat is not None
        for frame in range(15):
            beat(frame, 15)
            time.sleep(60 if self.table.path(video).endswith("pipe.png") and frame == 1 else 0.2)
        return torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.zeros(2)


def test_what_takes_long_is_read_as_long_as_frames_come(tmp_path: Path) -> None:
    records = images(tmp_path, 1, "pipe")
    told: list[Progress] = []
    data = Slow(PairTable.of(records), num_frames=2, framing=Framing(16), sampling="uniform", seed=0, training=False)
    limits: dict[str, Any] = {"sample_timeout": 1.5, "timeout_per_frame": True, "tell": told.extend}
    seen = list(evaluation_loader(data, batch_size=1, rank=0, world_size=1, workers=1, **limits))
    assert [batch["index"].tolist() for batch in seen] == [[0], []]
    reason = "no frame of it was read within 1.5 seconds"
    assert named(seen) == [{"video": records[1].video, "reason": reason, "excluded": True}]
    of_first = [progress.read for progress in told if progress.path == records[0].video]
    assert of_first == sorted(of_first) and of_first[-1] > of_first[0] and {item.wanted for item in told} <= {0, 15}
    assert told[-1].path == records[1].video and told[-1].read == 1


def test_one_process_tells_how_far_it_is(tmp_path: Path) -> None:
    records = images(tmp_path, 1)
    data = Slow(PairTable.of(records), num_frames=2, framing=Framing(16), sampling="uniform", seed=0, training=False)
    told: list[Progress] = []
    list(evaluation_loader(data, batch_size=1, rank=0, world_size=1, workers=0, tell=told.extend))
    assert [progress.path for progress in told] == [records[0].video] * 2
    assert [(progress.read, progress.wanted) for progress in told] == [(5, 15), (10, 15)]


def test_a_death_is_noticed_where_batches_are_waited_for_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch sets its handler once in a process, and another test may have had it do so.
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    handler = signal.getsignal(signal.SIGCHLD)
    records = images(tmp_path, 16)
    train = loader(dataset(records))
    batches = train.epoch(0)
    first = [next(batches), next(batches)]
    assert signal.getsignal(signal.SIGCHLD) is handler
    kill(processes(train), signal.SIGKILL)
    time.sleep(0.5)  # torch's would raise in here
    assert_same([*first, *batches], undisturbed(records, {}, 0))
    # Persistent workers that die between two epochs.
    kill(processes(train), signal.SIGKILL)
    assert_same(list(train.epoch(1)), undisturbed(records, {}, 1))
    assert signal.getsignal(signal.SIGCHLD) is handler


def kill(pids: list[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


def test_workers_do_not_have_the_signals_of_the_trainer(tmp_path: Path) -> None:
    # In a worker it would end it.
    before = {number: signal.signal(number, lambda *_: os._exit(1)) for number in (signal.SIGUSR1, signal.SIGTERM)}
    try:
        records = images(tmp_path, 16)
        train = loader(dataset(records))
        batches = train.epoch(0)
        first = [next(batches), next(batches)]
        workers = processes(train)
        kill(workers, signal.SIGUSR1)
        first.append(next(batches))
        assert processes(train) == workers
        kill(workers, signal.SIGTERM)
        assert_same([*first, *batches], undisturbed(records, {}, 0))
        assert set(processes(train)).isdisjoint(workers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def mixture(folder: Path) -> Mixture:
    """Batches of one source each, of other sizes; of the second the last five rows do not fill one."""
    first, second = images(folder / "first", 10), images(folder / "second", 6, "once")
    return Mixture(
        [
            Source("first", dataset(first), 2.0),
            Source("second", dataset(second, num_frames=1, framing=Framing(32)), 1.5, batch_size=8),
        ],
        "batch",
    )


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_each_rank_has_as_many_batches_though_workers_of_one_die(tmp_path: Path, world_size: int) -> None:
    of, sizes = mixture(tmp_path), {"batch_size": 16, "accumulate": 2}
    last = loader(of, 2, world_size - 1, world_size, **sizes)
    ranks = [*(loader(of, 0, rank, world_size, **sizes) for rank in range(world_size - 1)), last]
    for epoch, first_step in ((0, 1), (1, 0)):
        batches = last.epoch(epoch, first_step)
        disturbed = [next(batches)]
        kill(processes(last), signal.SIGKILL)
        disturbed += batches
        (tmp_path / "second" / "once.tried").touch()
        found = [list(rank.epoch(epoch, first_step)) for rank in ranks[:-1]] + [disturbed]
        alone = list(loader(of, 0, **sizes).epoch(epoch, first_step))
        assert [len(own) for own in found] == [2 * (last.steps_per_epoch - first_step)] * world_size
        assert_same(joined(found), alone)
        assert {len(batch["names"]) for batch in alone} == {4, 8}


def test_what_others_exclude_is_left_out_from_the_next_epoch_on(tmp_path: Path) -> None:
    records = images(tmp_path, 8)
    train = loader(dataset(records), workers=1)
    batches = train.epoch(0)
    first = [next(batches)]
    train.exclude([records[2].video, "of another task"])
    assert_same([*first, *batches], undisturbed(records, {}, 0))
    workers = processes(train)
    reason = "hung, or ended a worker, in another process of this run"
    assert_same(list(train.epoch(1)), undisturbed(records, {records[2].video: reason}, 1))
    assert processes(train) != workers
    workers = processes(train)
    train.exclude([records[2].video])  # known
    list(train.epoch(2))
    assert processes(train) == workers


class Stalling:
    """Puts a batch together, but what is asked for first stops, or dies, before; or each of them."""

    def __init__(self, tried: Path, *, dies: bool, always: bool) -> None:
        self.tried, self.dies, self.always = tried, dies, always

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        if self.always or not self.tried.exists():
            self.tried.touch()
            if self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return collate(samples)


def evaluation(records: list[VideoTextRecord], put_together: Stalling, **changes: Any) -> WatchedLoader:
    data = dataset(records, training=False, sampling="uniform")
    batches = evaluation_loader(data, batch_size=2, rank=0, world_size=1, workers=1, **changes)
    batches._collate = put_together
    return batches


@pytest.mark.parametrize("dies", [False, True])
def test_what_goes_wrong_outside_of_reading(tmp_path: Path, dies: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.3)  # for the end of what sleeps
    records = images(tmp_path, 4)
    once = Stalling(tmp_path / "tried", dies=dies, always=False)
    seen = list(evaluation(records, once, sample_timeout=PATIENT if dies else 1.0))
    assert [batch["index"].tolist() for batch in seen] == [[0, 1], [2, 3]] and named(seen) == []
    monkeypatch.setattr(watching, "MAX_RESTARTS", 2)
    always = Stalling(tmp_path / "tried", dies=dies, always=True)
    with pytest.raises(ValueError, match=r"train.workers: 1 processes .* begun 2 times without making a batch; look"):
        list(evaluation(records, always, sample_timeout=PATIENT if dies else 0.5))


def test_a_job_that_was_held_up_loses_no_video(tmp_path: Path) -> None:
    """All readings are old when it goes on; only one that does not end then has hung."""
    records = images(tmp_path, 8)
    train = loader(dataset(records), workers=1)
    batches = train.epoch(0)
    next(batches)
    time.sleep(0.3)  # all that is read ahead is read
    own, (worker,) = train._loader, processes(train)
    own._board.begin(0, records[0].video)
    own._board._state[0, 1] -= int((PATIENT + 1) * 1e9)
    own._look_after_workers(died=False)
    assert processes(train) == [worker] and own._iterator is not None
    own._look_after_workers(died=False)
    assert own._iterator is None
    excluded = {records[0].video: "not read within 60 seconds"}
    rest = list(batches)
    assert named(rest) and rest[-1]["names"] == undisturbed(records, excluded, 0)[-1]["names"]


def test_errors_of_the_data_are_raised_as_they_come(tmp_path: Path) -> None:
    records = images(tmp_path, 4)

    class Wrong(VideoTextDataset):
        def _read(self, *arguments: Any) -> tuple[Tensor, Tensor]:
            raise RuntimeError("our own mistake")

    data = Wrong(PairTable.of(records), num_frames=2, framing=Framing(16), sampling="uniform", seed=0, training=False)
    for workers in (0, 1):
        with pytest.raises(RuntimeError, match="our own mistake"):
            list(evaluation_loader(data, batch_size=2, rank=0, world_size=1, workers=workers))
