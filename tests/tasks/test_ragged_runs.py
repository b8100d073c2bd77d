"""Runs whose videos keep different numbers of tokens: training, evaluation, and two processes as one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datasets.samples import Clip
from engine.distributed import all_reduce_sum, rank, world_size
from engine.loop import evaluate
from tasks.data import video_text
from tasks.retrieval import RetrievalTask
from tasks.vqa import VqaTask
from tests.gloo import run_ranks
from tests.models.tiny import randomise
from tests.tasks.test_umt_answers import MODEL as UMT
from tests.tiny_runs import FRAMES, IMAGE, caption, config, trainer, write_data, write_questions, written

CPU = torch.device("cpu")
ROWS, PATCH = 4, 8
MODELS: dict[str, dict[str, Any]] = {
    "testa joint": {"attention": "joint", "patch_size": PATCH},
    "testa divided": {"attention": "divided", "patch_size": PATCH},
    "umt": UMT,
}
AGGREGATION = {"reducer": "run_length", "frames_per_block": 0, "patches_per_block": 0, "threshold": 0.24}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"), [1] * 6)
    return write_questions(root, [1, 2, 1, 3, 1, 2])


def section(system: str, task: str, root: Path, **sections: Any) -> Any:
    own = {"model": MODELS[system], "aggregation": AGGREGATION}
    if task == "retrieval":
        own["objective"] = {"momentum": 0.0}
    return config(task, root, **own, **sections)


def counts_of(task: Any, clips: Tensor) -> set[int]:
    tower = getattr(task.model, "visual_encoder", None) or task.model.vision_encoder
    return set(tower.kept_patches(clips).counts)


@pytest.mark.parametrize("system", MODELS)
def test_retrieval_trains_and_evaluates_alike_in_every_batch_size(data: Path, tmp_path: Path, system: str) -> None:
    settings = section(system, "retrieval", data, output_dir=str(tmp_path), train={"max_epochs": 1})
    task = RetrievalTask(settings, CPU)
    runner = trainer(task, settings)
    runner.train()
    runner.save_last()
    runner.wait_until_saved()

    results = []
    for batch_size in (1, 4):
        again = section(
            system,
            "retrieval",
            data,
            output_dir=str(tmp_path / str(batch_size)),
            checkpoint=str(tmp_path / "checkpoint_last"),
            evaluation={"batch_size": batch_size, "rerank": 3, "predictions": 3},
        )
        task = RetrievalTask(again, CPU)
        results.append(written(evaluate(task, again, CPU, final=False), tmp_path))
    assert results[0]["metrics"] == results[1]["metrics"]
    samples = video_text(task.config, task.split("eval").present, training=False)
    shown = torch.cat([clips.pixels for _, clips in task.each_clip(samples, 6, [])])
    assert len(counts_of(task, shown)) > 1


@pytest.mark.parametrize("system", ["testa joint", "umt"])
def test_questions_train_and_are_answered_alike_in_every_batch_size(data: Path, tmp_path: Path, system: str) -> None:
    settings = section(system, "vqa", data, output_dir=str(tmp_path), train={"max_epochs": 1})
    task = VqaTask(settings, CPU)
    trainer(task, settings).train()
    randomise(task.model)
    results = []
    for batch_size in (1, 4):
        object.__setattr__(task.evaluation, "batch_size", batch_size)
        results.append(written(evaluate(task, settings, CPU, final=False), tmp_path))
    assert results[0] == results[1]


def runs_of_pixels() -> Tensor:
    """uint8 clips (B, T, 3, H, W); in each row more patches change."""
    generator = torch.Generator().manual_seed(0)
    side = IMAGE // PATCH
    shown = torch.randint(0, 256, (ROWS, FRAMES, 3, IMAGE, IMAGE), generator=generator, dtype=torch.uint8)
    share = torch.linspace(0.0, 0.9, ROWS).view(ROWS, 1, 1, 1)
    changes = torch.rand(ROWS, FRAMES, side, side, generator=generator) < share
    for frame in range(1, FRAMES):
        mask = changes[:, frame].repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2).unsqueeze(1)
        shown[:, frame] = torch.where(mask, shown[:, frame], shown[:, frame - 1])
    return shown


def losses_and_gradients(root: Path) -> dict[str, Tensor]:
    """Of one step over the global batch, each process with its rows."""
    torch.manual_seed(1)
    task = RetrievalTask(section("testa joint", "retrieval", root), CPU)
    randomise(task.model)
    rows = slice(rank() * ROWS // world_size(), (rank() + 1) * ROWS // world_size())
    pixels = runs_of_pixels()
    assert len(counts_of(task, pixels)) == ROWS
    texts = [caption(video) for video in range(ROWS)]
    batch = {"clip": Clip.of_pixels(pixels[rows]), "text": texts[rows], "index": torch.arange(ROWS)[rows]}
    task.begin_step(0, 0.0, [batch])
    losses = task(batch)
    torch.stack(list(losses.values())).sum().backward()
    found = {name: all_reduce_sum(loss) / world_size() for name, loss in losses.items()}
    for name, parameter in task.model.named_parameters():
        if parameter.grad is not None:
            found[name] = all_reduce_sum(parameter.grad) / world_size()
    return found


@pytest.mark.soak
def test_two_processes_train_as_one(data: Path) -> None:
    """Their longest rows differ; negatives come from both."""
    alone = losses_and_gradients(data)
    for of_rank in run_ranks(2, losses_and_gradients, data):
        assert of_rank.keys() == alone.keys()
        for name, expected in alone.items():
            scale = expected.abs().max().clamp(min=1.0)
            torch.testing.assert_close(of_rank[name] / scale, expected / scale, atol=1e-5, rtol=1e-5, msg=name)
