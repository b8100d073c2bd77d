"""Pre-training on several sources: tables of videos and of images, in shared batches or in batches of their own."""

import json
import logging
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.records import VideoTextRecord
from engine.run import run
from tasks.data import video_text
from tasks.pretrain import PretrainTask
from tests.gloo import run_ranks
from tests.integration.runs import (
    assert_same_losses,
    losses_of,
    metrics_of,
    start,
    train as train_by_script,
    weights_of,
    write_config,
)
from tests.tiny_runs import FRAMES, IMAGE, caption, config, write_data

VIDEOS, IMAGES = 8, 6
Mixing = Literal["sample", "batch"]


class Killed(Exception):
    """What stops a run from outside."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos in a table of WebVid, one of which is broken and one gone, and six images in another table."""
    root = write_data(tmp_path_factory.mktemp("data"), [1] * VIDEOS)
    (root / "videos" / "3.mp4").write_text("no video")
    (root / "videos" / "5.mp4").unlink()
    lines = [f'{video},u,d,,"{caption(video)}, a video"\n' for video in range(VIDEOS)]
    (root / "videos.csv").write_text("videoid,contentUrl,duration,page_dir,name\n" + "".join(lines) + "9,u,d,,...\n")
    colours = np.random.default_rng(0).integers(0, 255, (IMAGES, 3), dtype=np.uint8)
    (root / "images").mkdir()
    for number, colour in enumerate(colours):
        Image.fromarray(np.broadcast_to(colour, (40, 56, 3)).copy()).save(root / "images" / f"{number}.jpg")
    (root / "images.tsv").write_text("".join(f"a picture {number}\t{number}.jpg\n" for number in range(IMAGES)))
    return root


def sections(root: Path, mixing: Mixing, **images: Any) -> dict[str, Any]:
    """8 videos and twice 6 images an epoch; in batches of their own those are 6 a step, of 2 frames of 48 pixels."""
    if mixing == "batch":
        images = {"num_frames": 2, "image_size": 48, "batch_size": 6, **images}
    sources = [
        {"file": "videos.csv", "media": "videos"},
        {"file": "images.tsv", "media": "images", "weight": 2.0, **images},
    ]
    return {"data": {"root": str(root), "sources": sources, "mixing": mixing}}


# All that is random, switched on.
RANDOM: dict[str, Any] = {
    "video": {"num_frames": FRAMES, "image_size": IMAGE, "train_sampling": "headtail", "augment": True, "resize": 40},
    "train": {"max_epochs": 2, "batch_size": 4, "accumulate": 2, "save_every": 1, "workers": 1, "log_every": 1},
}


@contextmanager
def watched() -> Iterator[list[tuple[torch.Size, list[str]]]]:
    """The shape and the texts of each batch that the task gets."""
    batches: list[tuple[torch.Size, list[str]]] = []
    forward = PretrainTask.forward

    def watch(task: PretrainTask, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        batches.append((batch["clip"].pixels.shape[:2] + batch["clip"].pixels.shape[-1:], batch["text"]))
        return forward(task, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainTask, "forward", watch)
        yield batches


@pytest.mark.parametrize("mixing", ["sample", "batch"])
def test_a_run_on_videos_and_images(root: Path, tmp_path: Path, mixing: Mixing) -> None:
    with watched() as batches:
        folder = train_by_script(root, tmp_path / "run", "pretrain", **RANDOM, **sections(root, mixing))
    shapes = Counter(shape for shape, _ in batches)
    video, image = (2, FRAMES, IMAGE), (3, 2, 48)
    # Two micro-batches a step: 8 + 12 rows in steps of 4, or 8 in steps of 4 and 12 in steps of 6.
    assert shapes == ({video: 20} if mixing == "sample" else {video: 8, image: 8})
    kinds = [{"picture" in text for text in texts} for _, texts in batches]
    assert any(len(kind) == 2 for kind in kinds) == (mixing == "sample")
    shown = Counter(text for _, texts in batches for text in texts if "picture" in text)
    assert shown == {f"a picture {number}": 4 for number in range(IMAGES)}  # twice in each of two epochs
    losses = losses_of(folder)
    assert len(losses) == (10 if mixing == "sample" else 8)
    assert all(line.keys() == {"loss", "loss_vtc", "loss_vtm", "loss_cap"} for line in losses)
    # What cannot be read is named, and the run goes on.
    quarantined = {json.loads(line)["video"] for line in (folder / "quarantine.jsonl").read_text().splitlines()}
    assert quarantined == {str(root / "videos" / "3.mp4"), str(root / "videos" / "5.mp4")}
    # The speed is that of the rows there were.
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [line["samples_per_second"] * line["seconds_per_step"] for line in lines]
    assert [round(count) for count in rows] == [2 * len(texts) for _, texts in batches[::2]]


def test_a_run_that_was_killed_goes_on_bit_for_bit(root: Path, tmp_path: Path) -> None:
    arguments = {**RANDOM, **sections(root, "batch")}
    whole = train_by_script(root, tmp_path / "whole", "pretrain", **arguments)
    begin_step = PretrainTask.begin_step

    def killed(task: PretrainTask, step: int, *arguments: Any) -> None:
        if step == 6:  # in the second epoch
            raise Killed
        begin_step(task, step, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(PretrainTask, "begin_step", killed)
        train_by_script(root, tmp_path / "killed", "pretrain", **arguments)
    resumed = train_by_script(root, tmp_path / "killed", "pretrain", **arguments)
    assert metrics_of(resumed) == metrics_of(whole)
    before, after = weights_of(whole / "checkpoint_last"), weights_of(resumed / "checkpoint_last")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("order", ["shuffled", "turns"])
def test_two_processes_take_the_same_turns_and_train_as_one(root: Path, tmp_path: Path, order: str) -> None:
    arguments = {
        "train": {"max_epochs": 2, "batch_size": 4, "workers": 0, "log_every": 1},
        **(in_turns(root) if order == "turns" else sections(root, "batch")),
    }
    run_pretraining(root, tmp_path / "alone", arguments)
    run_ranks(2, run_pretraining, root, tmp_path / "ranks", arguments)
    assert_same_losses(tmp_path / "alone", tmp_path / "ranks", tolerance=1e-4)


def in_turns(root: Path) -> dict[str, Any]:
    """A step on videos, a step on images, and so on; the videos end the epoch, and images contrast alone."""
    arguments = sections(root, "batch", batch_size=4, losses=["vtc"])
    del arguments["data"]["sources"][1]["weight"]
    arguments["data"] |= {"order": "turns", "epoch_source": "videos.csv"}
    return arguments


def test_sources_in_turns_with_losses_of_their_own_resume_exactly_at_every_step(root: Path, tmp_path: Path) -> None:
    arguments = {**RANDOM, **in_turns(root)}
    arguments["train"] = {**arguments["train"], "workers": 0}
    with watched() as batches:
        whole = train_by_script(root, tmp_path / "whole", "pretrain", **arguments)

    # Two micro-batches a step, of eight videos an epoch. The images begin again in the middle of the first epoch's
    # second turn, and are at their end for the second time before the second epoch's.
    kinds = ["picture" in texts[0] for _, texts in batches]
    assert kinds == [False, False, True, True] * 4
    every, contrast = {"loss", "loss_vtc", "loss_vtm", "loss_cap"}, {"loss", "loss_vtc"}
    assert [line.keys() for line in losses_of(whole)] == [every, contrast] * 4
    shown = Counter(text for _, texts in batches for text in texts if "picture" in text)
    assert len(shown) == IMAGES and sum(shown.values()) == 16 and set(shown.values()) == {2, 3}

    # Each start is told to stop during its first step, which is saved.
    begin_step, starts = PretrainTask.begin_step, 0

    def interrupted(task: PretrainTask, *step: Any) -> None:
        begin_step(task, *step)
        os.kill(os.getpid(), signal.SIGTERM)

    path = write_config("pretrain", root, "stepwise.yaml", output_dir=str(tmp_path / "stepwise"), **arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainTask, "begin_step", interrupted)
        while start("pretrain", "--config", path) and starts < 10:
            starts += 1

    assert 7 <= starts <= 8
    assert losses_of(tmp_path / "stepwise") == losses_of(whole)
    before, after = (weights_of(folder / "checkpoint_last") for folder in (whole, tmp_path / "stepwise"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": ["vtm"]}, "data.sources: losses of images.tsv: 'vtm' draws its negatives by 'vtc'"),
        ({"losses": ["sort"]}, "data.sources: losses of images.tsv: 'sort' is none of objective.losses"),
    ],
)
def test_losses_of_a_source_that_cannot_be(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainTask(config("pretrain", root, **sections(root, "batch", **changes)), torch.device("cpu"))


def test_a_loss_that_no_source_trains_on_is_refused(root: Path) -> None:
    arguments = sections(root, "batch", losses=["vtc"])
    arguments["data"]["sources"][0]["losses"] = ["vtc", "vtm"]
    with pytest.raises(ValueError, match="objective.losses: no source of data.sources trains on 'cap'"):
        PretrainTask(config("pretrain", root, **arguments), torch.device("cpu"))


def run_pretraining(root: Path, folder: Path, arguments: dict[str, Any]) -> None:
    """In one process group, which `run` would leave."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.run.stop_distributed", lambda: None)
        run(config("pretrain", root, **arguments, output_dir=str(folder)), PretrainTask)


def test_what_is_read_is_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    task = PretrainTask(config("pretrain", root, **sections(root, "batch")), torch.device("cpu"))
    assert task.steps_per_epoch == 4
    said = caplog.text
    assert f"{root}/videos.csv: 8 pairs, each 1 times an epoch as 4 frames of 32 pixels; 1 rows without words" in said
    assert f"{root}/images.tsv: 6 pairs, each 2 times an epoch as 2 frames of 48 pixels; 0 rows without words" in said
    assert f"{root}/videos.csv: 1 of 8 files looked for are missing; such are replaced" in said
    # A vocabulary is made of the texts of both.
    assert sorted(task.training_texts())[:2] == ["a picture 0", "a picture 1"]
    assert len(list(task.training_texts())) == VIDEOS + IMAGES


def test_videos_are_read_larger_by_the_same_share(root: Path) -> None:
    arguments = {**sections(root, "batch"), "video": {**RANDOM["video"], "resize": 40}}
    task = PretrainTask(config("pretrain", root, **arguments), torch.device("cpu"))
    assert task._mixture is not None
    assert [source.data.framing.read_size for source in task._mixture.sources] == [40, 60]


def test_a_manifest_is_read_through_its_index(root: Path) -> None:
    task = PretrainTask(config("pretrain", root), torch.device("cpu"))
    assert task.steps_per_epoch == 2 and (root / "captions.jsonl.index" / "table" / "meta.json").is_file()
    assert {tuple(batch["clip"].pixels.shape) for batch in task.train_epoch(0, 0)} == {(4, FRAMES, 3, IMAGE, IMAGE)}


def test_what_hung_in_one_evaluation_is_not_opened_in_the_next(root: Path, tmp_path: Path) -> None:
    records = []
    for name in ("first", "pipe", "last"):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{name}.png")
        records.append(VideoTextRecord(str(tmp_path / f"{name}.png"), (name,)))
    (tmp_path / "pipe.png").unlink()
    os.mkfifo(tmp_path / "pipe.png")
    hung = {"video": str(tmp_path / "pipe.png"), "reason": "not read within 2 seconds", "excluded": True}
    task = PretrainTask(
        config("pretrain", root, train={"workers": 1, "sample_timeout": 2.0, "batch_size": 4}), torch.device("cpu")
    )
    for _ in range(2):
        failed: list[dict[str, Any]] = []
        seen = [positions for positions, _ in task.each_video(video_text(task.config, records, False), 2, failed)]
        assert seen == [[0], [2]] and failed == [hung]
        # If it were opened again, it would be read.
        (tmp_path / "pipe.png").unlink()
        shutil.copy(tmp_path / "last.png", tmp_path / "pipe.png")


def test_a_task_leaves_out_what_it_is_told(root: Path) -> None:
    task = PretrainTask(config("pretrain", root, **sections(root, "sample")), torch.device("cpu"))
    told = [str(root / "images" / f"{number}.jpg") for number in (0, 4)]
    seen = {name for batch in task.train_epoch(0, 0) for name in batch["names"]}
    task.exclude(told)
    batches = list(task.train_epoch(0, 0))
    later = {name for batch in batches for name in batch["names"]}
    assert seen & set(told) and not later & set(told)
    assert {entry["video"] for batch in batches for entry in batch["failed"] if entry["excluded"]} <= set(told)


def test_a_public_dataset_is_read_as_by_other_tasks(root: Path) -> None:
    rows = [{"clip_name": str(video), "caption": caption(video)} for video in (0, 1, 2, 4, 5)]
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = PretrainTask(config("pretrain", root, data={"root": str(root), "dataset": "didemo"}), torch.device("cpu"))
    assert task.steps_per_epoch == 1
    assert len([text for batch in task.train_epoch(0, 0) for text in batch["text"]]) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": {"image_size": 40}}, "data.sources: images.tsv: image_size 40 is no multiple of model"),
        ({"images": {"batch_size": 2}, "train": {"accumulate": 2}}, "data.sources: batch_size 2 of images.tsv leaves"),
        ({"model": {"temporal_scaling": True}}, "data.sources: images.tsv: num_frames 2 needs as many factors"),
        ({"images": {"media": "nowhere"}}, "{root}/images.tsv: none of 6 videos or images is there (the first"),
    ],
)  # fmt: skip
def test_sources_that_do_not_go(root: Path, changes: dict[str, Any], said: str) -> None:
    own = {name: changes.get(name, {}) for name in ("images", "data", "train", "model")}
    arguments = sections(root, "batch", **own["images"])
    arguments["data"] |= own["data"]
    # Without aggregation, which would refuse temporal_scaling before the sources are looked at.
    arguments["aggregation"] = {"reducer": "none", "frames_per_block": 0, "patches_per_block": 0}
    with pytest.raises(ValueError) as error:
        PretrainTask(config("pretrain", root, **arguments, train=own["train"], model=own["model"]), torch.device("cpu"))
    assert str(error.value).startswith(said.replace("{root}", str(root))) and "\n" not in str(error.value)
