"""Training that draws how many tokens a step keeps: the draw, the step at that budget, resuming and evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.load import from_dict
from configs.schedule import kept_of_share
from configs.schema import RecognitionConfig
from datasets.samples import Clip
from engine.distributed import all_reduce_sum, rank, world_size
from engine.loop import evaluate
from engine.run import run
from models.parts.run_length import RunLength
from tasks.base import VideoTextTask
from tasks.budgets import draw_keep
from tasks.caption import CaptionTask
from tasks.recognition import RecognitionTask
from tasks.retrieval import RetrievalTask
from tasks.vqa import VqaTask
from tests.gloo import run_ranks
from tests.integration.test_runs import assert_equal_runs, killed_at
from tests.models.tiny import randomise
from tests.tasks.test_ragged_runs import MODELS, PATCH, ROWS, runs_of_pixels
from tests.tiny_runs import FRAMES, IMAGE, caption, config, trainer, write_data, write_questions, written

CPU = torch.device("cpu")
PATCHES = (IMAGE // PATCH) ** 2
LOWEST, HIGHEST, KEEP, SEED = 0.3, 1.0, 0.6, 42
TVTS: dict[str, Any] = {
    "name": "tvts", "depth": 2, "width": 16, "heads": 2, "patch_size": PATCH, "embed_dim": 8, "sort_heads": 2,
    "mask_ratio": 0.0,
    "text": {"tokenizer": "from_data", "vocab_size": 560, "depth": 3, "width": 16, "heads": 2, "max_positions": 24},
}  # fmt: skip
SYSTEMS: dict[str, dict[str, Any]] = {**MODELS, "tvts": TVTS}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"), [1] * 6)
    return write_questions(root, [1, 2, 1, 3, 1, 2])


def run_length(keep: float = KEEP, **more: Any) -> dict[str, Any]:
    return {"reducer": "run_length", "frames_per_block": 0, "patches_per_block": 0, "keep": keep, **more}


DRAWN = run_length(train_keep=[LOWEST, HIGHEST])


def section(system: str, root: Path, aggregation: dict[str, Any] = DRAWN, task: str = "retrieval", **more: Any) -> Any:
    own = {"model": SYSTEMS[system], "aggregation": aggregation, **more}
    if task == "retrieval":
        twin = {} if system == "umt" else {"momentum": 0.9}
        own |= {"objective": {"losses": ["vtc"], "momentum": 0.0, **twin}, "evaluation": {"rerank": 0}}
    return config(task, root, **own)


def texts() -> list[dict[str, Any]]:
    """What a step asks of its batches before the first forward pass."""
    return [{"text": ["a red circle", "it grows"], "row": torch.arange(2)}]


def drawn_at(step: int, seed: int = SEED) -> float:
    return float(np.random.default_rng((10, seed, 0, step)).uniform(LOWEST, HIGHEST))


def towers_of(task: Any) -> list[Any]:
    return [part for part in task.modules() if isinstance(getattr(part, "before_blocks", None), RunLength)]


def shares_of(task: Any) -> set[float | None]:
    return {tower.before_blocks.keep for tower in towers_of(task)}


@pytest.mark.parametrize("system", SYSTEMS)
@torch.no_grad()
def test_a_step_keeps_the_share_that_seed_and_step_say(data: Path, system: str) -> None:
    """The twin as well; evaluation keeps the configured one, and the step after it draws again."""
    task = RetrievalTask(section(system, data), CPU).train()
    assert len(towers_of(task)) == (1 if system == "umt" else 2) and shares_of(task) == {KEEP}

    # TESTA's and TVTSv2's tokens begin with the class token.
    others = 0 if system == "umt" else 1
    counts = set()
    for step in (0, 1, 4):
        task.begin_step(step, 0.0, texts())
        assert shares_of(task) == {drawn_at(step)}
        expected = kept_of_share(drawn_at(step), FRAMES, PATCHES)
        assert task.model.video_tokens(runs_of_pixels()).shape[1] == expected + others
        counts.add(expected)
    assert len(counts) == 3

    task.eval()
    assert shares_of(task) == {KEEP}
    assert task.model.video_tokens(runs_of_pixels()).shape[1] == kept_of_share(KEEP, FRAMES, PATCHES) + others
    task.train().begin_step(2, 0.0, texts())
    assert shares_of(task) == {drawn_at(2)}


def test_draws_fill_the_range_evenly_and_differ_by_seed() -> None:
    shares = np.array([drawn_at(step) for step in range(2000)])
    assert LOWEST <= shares.min() < LOWEST + 0.01 and HIGHEST - 0.01 < shares.max() <= HIGHEST
    counts, _ = np.histogram(shares, bins=7, range=(LOWEST, HIGHEST))
    assert counts.min() > 2000 / 7 * 0.8
    assert drawn_at(0) != drawn_at(0, seed=SEED + 1)


def batch_of_rows(rows: slice = slice(ROWS)) -> dict[str, Any]:
    texts = [caption(video) for video in range(ROWS)]
    return {"clip": Clip.of_pixels(runs_of_pixels()[rows]), "text": texts[rows], "index": torch.arange(ROWS)[rows]}


def losses_and_gradients(settings: Any, step: int, batches: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Of an optimizer step over all micro-batches and processes."""
    torch.manual_seed(1)
    task = RetrievalTask(settings, CPU).train()
    randomise(task.model)
    batches = [dict(batch) for batch in batches]
    task.begin_step(step, 0.0, batches)
    found: dict[str, Tensor] = {}
    for batch in batches:
        losses = task(batch)
        (torch.stack(list(losses.values())).sum() / len(batches)).backward()
        for name, loss in losses.items():
            found[name] = found.get(name, 0) + all_reduce_sum(loss.detach()) / world_size() / len(batches)
    for name, parameter in task.named_parameters():
        if parameter.grad is not None:
            found[name] = all_reduce_sum(parameter.grad) / world_size()
    return found


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().clamp(min=1.0)
        torch.testing.assert_close(found[name] / scale, value / scale, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("checkpointing", ["none", "recompute"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_step_is_that_of_a_run_with_the_drawn_budget(data: Path, system: str, checkpointing: str) -> None:
    """Of two micro-batches, with recomputation too."""
    train = {"activation_checkpointing": checkpointing, "accumulate": 2}
    batches = [batch_of_rows(slice(2)), batch_of_rows(slice(2, 4))]
    found = losses_and_gradients(section(system, data, train=train), 3, batches)
    expected = losses_and_gradients(section(system, data, run_length(drawn_at(3))), 3, batches)
    configured = losses_and_gradients(section(system, data, run_length()), 3, batches)
    assert_alike(found, expected)
    assert not torch.equal(found["vtc"], configured["vtc"])


@pytest.mark.parametrize("system", ["testa joint", "umt"])
def test_what_merges_inside_does_so_at_every_budget(data: Path, system: str) -> None:
    """As many tokens at each, or, in UMT, as large a share of those that the budget leaves."""
    amounts = [0.3, 2] if system == "umt" else [5, 2]
    ways: list[dict[str, Any]] = [
        {"inside": "tome", "tokens_per_block": [5, 2]},
        {"inside": "saliency", "tokens_per_block": amounts},
    ]
    for inside in ways:
        drawn = section(system, data, run_length(train_keep=[LOWEST, HIGHEST], **inside))
        found = losses_and_gradients(drawn, 3, [batch_of_rows()])
        expected = losses_and_gradients(section(system, data, run_length(drawn_at(3), **inside)), 3, [batch_of_rows()])
        alone = losses_and_gradients(section(system, data, run_length(drawn_at(3))), 3, [batch_of_rows()])
        assert_alike(found, expected)
        assert not torch.equal(found["vtc"], alone["vtc"])


def step_of_rank(root: Path) -> dict[str, Tensor]:
    """One step, each process with its rows."""
    share = ROWS // world_size()
    rows = slice(rank() * share, (rank() + 1) * share)
    return losses_and_gradients(section("testa joint", root), 4, [batch_of_rows(rows)])


@pytest.mark.soak
def test_two_processes_draw_and_train_as_one(data: Path) -> None:
    alone = step_of_rank(data)
    for of_rank in run_ranks(2, step_of_rank, data):
        assert_alike(of_rank, alone)


def test_a_run_that_was_killed_resumes_to_the_bit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It draws at step 2 what the whole run drew there, though it has not drawn at steps 0 and 1."""
    shares: list[float | None] = []
    draw = VideoTextTask.begin_step

    def noted(task: VideoTextTask, *arguments: Any) -> None:
        draw(task, *arguments)
        shares.append(*shares_of(task))

    monkeypatch.setattr(VideoTextTask, "begin_step", noted)
    train = {"max_epochs": 2, "batch_size": 2, "save_every": 1}
    whole, killed = (section("umt", data, train=train, output_dir=str(tmp_path / name)) for name in ("whole", "killed"))
    run(whole, RetrievalTask)
    with killed_at(2):
        run(killed, RetrievalTask)
    run(killed, RetrievalTask)
    assert shares[:6] == shares[6:] == [drawn_at(step) for step in range(6)]
    assert_equal_runs(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("system", SYSTEMS)
def test_evaluation_knows_nothing_of_the_last_draw(data: Path, tmp_path: Path, system: str) -> None:
    """It gives what the weights give in a run that never drew; training resumes at what it drew."""
    settings = section(system, data, output_dir=str(tmp_path), train={"max_epochs": 1})
    task = RetrievalTask(settings, CPU)
    runner = trainer(task, settings)
    runner.train()
    runner.save_last()
    runner.wait_until_saved()
    task.train().begin_step(9, 0.0, texts())
    found = written(evaluate(task, settings, CPU, final=False), tmp_path)

    checkpoint = {"checkpoint": str(tmp_path / "checkpoint_last"), "output_dir": str(tmp_path / "again")}
    plain = section(system, data, run_length(), **checkpoint)
    expected = written(evaluate(RetrievalTask(plain, CPU), plain, CPU, final=False), tmp_path)
    assert found == expected
    assert task.training


@pytest.mark.parametrize("task_class", [VqaTask, CaptionTask])
def test_texts_are_trained_at_drawn_budgets(data: Path, task_class: type[Any]) -> None:
    name = "vqa" if task_class is VqaTask else "caption"
    task = task_class(section("testa joint", data, task=name), CPU)
    task.begin_step(5, 0.0, [{"text": ["a red circle"]}])
    assert shares_of(task) == {drawn_at(5)}


def classes(root: Path, **sections: Any) -> RecognitionConfig:
    own = {
        "task": "recognition",
        "data": {"root": str(root)},
        "train": {"batch_size": 4, "max_epochs": 1, "workers": 0},
        "video": {"num_frames": FRAMES, "image_size": IMAGE},
        "model": {**SYSTEMS["umt"], "text": {**SYSTEMS["umt"]["text"], "tokenizer": "from_data"}},
        "aggregation": {"reducer": "run_length", "keep": KEEP, "train_keep": [LOWEST, HIGHEST]},
        **sections,
    }
    return from_dict(RecognitionConfig, own, "test")


def test_classes_are_trained_at_drawn_budgets(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecognitionTask, "training_texts", lambda self: ["a red circle"])
    monkeypatch.setattr(RecognitionTask, "labels", lambda self, part: torch.zeros(2))
    task = RecognitionTask(classes(data), CPU)
    task.begin_step(6, 0.0, texts())
    assert shares_of(task) == {drawn_at(6)}


@pytest.mark.parametrize(
    ("aggregation", "more", "said"),
    [
        (run_length(train_keep=[0.1, 1.0]), {}, "aggregation.train_keep: 0.1 of 4 frames .* keep at least 0.25; null"),
        (run_length(train_keep=[0.5, 0.4]), {}, r"aggregation.train_keep: \[0.5, 0.4\] are not two shares"),
        (run_length(train_keep=[0.0, 0.4]), {}, r"aggregation.train_keep: \[0.0, 0.4\] are not two shares"),
        (run_length(train_keep=[0.5, 1.2]), {}, r"aggregation.train_keep: \[0.5, 1.2\] are not two shares"),
        (run_length(train_keep=[0.5]), {}, "aggregation.train_keep: found .* expected a list of 2"),
        ({**DRAWN, "keep": None}, {}, "aggregation.train_keep: .* set aggregation.keep to the share that evaluation"),
        ({**DRAWN, "reducer": "tome"}, {}, "aggregation.train_keep: .* no effect with reducer 'tome'"),
        ({**DRAWN, "reducer": "quadtree"}, {}, "aggregation.train_keep: .* no effect with reducer 'quadtree'"),
        (DRAWN, {"train": {"compile": True}}, "aggregation.train_keep: .* set train.compile=false"),
        (
            {**DRAWN, "inside": "saliency", "tokens_per_block": [0.3]},
            {},
            "aggregation.tokens_per_block: a share is another number at each budget",
        ),
        (
            {**DRAWN, "inside": "tome", "tokens_per_block": [12]},
            {},
            r"tokens_per_block with train_keep \[0.3, 1.0\]: block 0 is to lose 12 of the 19 tokens .* at most 9",
        ),
    ],
)
def test_what_is_refused(data: Path, aggregation: dict[str, Any], more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        section("testa joint", data, aggregation, **more)


def test_a_probe_draws_nothing(data: Path) -> None:
    with pytest.raises(ValueError, match="aggregation.train_keep: has no effect on a probe"):
        classes(data, objective={"name": "probe"})


def test_every_encoder_can_be_told(data: Path) -> None:
    """An encoder that hides its run-length tokens elsewhere would train at one budget, unnoticed."""
    with pytest.raises(AssertionError, match="no encoder"):
        draw_keep(torch.nn.Linear(1, 1), section("umt", data).aggregation, SEED, 0)
