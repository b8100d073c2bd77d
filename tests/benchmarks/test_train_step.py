"""The step that is measured is the one that trains, and the released code's in plain lines gives the same."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import train_step
from benchmarks.measure import measure
from benchmarks.naive_step import NaiveStep, has_reference_step
from benchmarks.settings import Settings
from benchmarks.train_step import (
    RandomPairs,
    make_trainer,
    normalised,
    pretraining,
    random_batch,
    special_words,
)
from configs.schema import PretrainConfig
from engine.loop import Trainer
from models.parts.losses import selection_noise
from tests.models.tiny import randomise

CPU = torch.device("cpu")
BATCH = 4
SMALL = (
    "model.depth=2", "model.width=32", "model.heads=2", "model.patch_size=4", "model.embed_dim=16",
    "model.text.vocab_size=50", "model.text.depth=2", "model.text.width=32", "model.text.heads=2",
    "model.text.intermediate=48", "model.text.max_positions=64", "model.text.dropout=0.0",
    "video.num_frames=8", "video.image_size=16", "aggregation.frames_per_block=1", "aggregation.patches_per_block=3",
    "objective.queue_size=12", "objective.alpha_ramp_epochs=0.0", "objective.momentum=0.9",
    f"train.batch_size={BATCH}",
    # A large eps, since a gradient of next to nothing has no sign to step by.
    "optim.lr=1e-2", "optim.eps=1e-2", "optim.decay=all", "optim.weight_decay=0.1",
)  # fmt: skip


def settings(*overrides: str) -> Settings:
    """A small model, its overrides replaced by others of the same key."""
    merged = {override.partition("=")[0]: override for override in (*SMALL, *overrides)}
    return Settings(None, tuple(merged.values()), "cpu", threads=1, rounds=1)


def drawn_as_ours(config: PretrainConfig, steps: list[int]) -> Any:
    """The draw of our task, which follows from the seed and the step (the last of `steps`)."""

    def draw(weights: Tensor, wanted: str, row: int) -> int:
        noise = selection_noise(config.seed, steps[-1], 0, len(weights))
        return int((weights.log() + noise[["text", "video"].index(wanted), row]).argmax())

    return draw


@pytest.fixture(params=["geometry", "none"])
def sides(request: pytest.FixtureRequest) -> Iterator[tuple[PretrainConfig, Trainer, NaiveStep]]:
    """Both ways to take a step, from the same weights, a twin that differs from them, and the same queue."""
    none = ("aggregation.reducer=none", "aggregation.frames_per_block=0", "aggregation.patches_per_block=0")
    config = pretraining(settings(*(none if request.param == "none" else ())))
    trainer = make_trainer(config, CPU)
    task = trainer.module
    assert isinstance(task, RandomPairs) and task.objectives.twin is not None
    torch.manual_seed(1)
    randomise(task.model)
    randomise(task.objectives.twin)
    task.objectives.queue.text.copy_(task.objectives.queue.text.roll(1, dims=0))
    words = special_words(config)
    naive = NaiveStep(config, words.enc_id, words.dec_id, CPU)
    twin = {f"twins.{name}": value for name, value in twin_state(task).items()}
    left_out = naive.module.load_state_dict({**task.model.state_dict(), **twin}, strict=False)
    assert set(left_out.missing_keys) == {"video_queue", "text_queue", "pointer"} and not left_out.unexpected_keys
    naive.module.video_queue.copy_(task.objectives.queue.video.T)
    naive.module.text_queue.copy_(task.objectives.queue.text.T)
    yield config, trainer, naive


def twin_state(task: RandomPairs) -> dict[str, Tensor]:
    """Our twin's weights by the names of the trained parts."""
    state = task.objectives.twin.state_dict()
    return {name.replace("_m.", ".", 1): value for name, value in state.items()}


def test_losses_and_gradients_are_the_released_codes(sides: tuple[PretrainConfig, Trainer, NaiveStep]) -> None:
    config, trainer, naive = sides
    batch = random_batch(config)
    assert len(set(batch["mask"].sum(dim=1).tolist())) > 1, "texts of one length would not show padding"
    trainer.task.begin_step(0, 0.0, [batch])
    found = trainer.module(batch)
    sum(found.values()).backward()
    own = normalised(config, batch)
    expected = naive.module(own["video"], own["ids"], own["mask"], config.objective.alpha, drawn_as_ours(config, [0]))
    sum(expected.values()).backward()
    assert found.keys() == expected.keys() == {"vtc", "vtm", "cap"}
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-5, atol=1e-5, msg=name)
    gradients = {name: parameter.grad for name, parameter in trainer.module.model.named_parameters()}
    wanted = {name: parameter.grad for name, parameter in naive.module.named_parameters() if parameter.requires_grad}
    assert gradients.keys() == wanted.keys() and None not in [*gradients.values(), *wanted.values()]
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_whole_steps_are_the_released_codes(sides: tuple[PretrainConfig, Trainer, NaiveStep]) -> None:
    config, trainer, naive = sides
    before = {name: value.clone() for name, value in trainer.module.model.state_dict().items()}
    steps: list[int] = []
    for step in range(4):
        # Another batch each time; the fourth begins the queue of twelve again.
        batch = random_batch(replace(config, seed=step))
        steps.append(step)
        trainer.train_step(iter([dict(batch)]))
        expected = naive(normalised(config, batch), drawn_as_ours(config, steps))
        [found] = trainer.records.collect(trainer.progress.step)
        assert {name: found.values[f"loss_{name}"] for name in expected} == pytest.approx(expected, rel=1e-4)
    task = trainer.module
    state = naive.module.state_dict()
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-4, msg=name)
    for name, value in twin_state(task).items():
        torch.testing.assert_close(value, state[f"twins.{name}"], rtol=1e-4, atol=1e-4, msg=name)
    for name in ("video", "text"):
        queue = getattr(task.objectives.queue, name)
        torch.testing.assert_close(queue.T, state[f"{name}_queue"], rtol=1e-4, atol=1e-4)
    assert int(task.objectives.queue.pointer) == int(state["pointer"]) == BATCH
    moved = [(value - before[name]).abs().max() > 1e-3 for name, value in task.model.state_dict().items()]
    assert all(moved)


def test_each_encoder_sees_each_video_once() -> None:
    config = pretraining(settings())
    trainer = make_trainer(config, CPU)
    seen: dict[str, list[int]] = {"visual_encoder": [], "visual_encoder_m": []}
    for name, parent in (
        ("visual_encoder", trainer.module.model),
        ("visual_encoder_m", trainer.module.objectives.twin),
    ):
        getattr(parent, name).register_forward_hook(lambda _, given, __, name=name: seen[name].append(len(given[0])))
    trainer.train_step(iter([random_batch(config)]))
    assert seen == {"visual_encoder": [BATCH], "visual_encoder_m": [BATCH]}


def measured(given: Settings, precision: str, checkpointing: str, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """The trainer of two calls of what is measured."""
    trainers: list[Trainer] = []

    def made(config: PretrainConfig, device: torch.device) -> Trainer:
        trainers.append(make_trainer(config, device))
        return trainers[0]

    monkeypatch.setattr(train_step, "make_trainer", made)
    work = train_step.ours(given, precision, checkpointing)
    work()
    work()
    return trainers[0]


def test_what_is_measured_runs_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings()
    losses = {}
    for precision, checkpointing in itertools.product(("fp32", "bf16"), ("none", "recompute")):
        trainer = measured(given, precision, checkpointing, monkeypatch)
        assert trainer.step.precision == precision and trainer.progress.step == 2
        assert trainer.config.train.activation_checkpointing == checkpointing
        losses[precision, checkpointing] = [record.values["loss"] for record in trainer.records.collect(2)]
    plain = losses["fp32", "none"]
    assert losses["fp32", "recompute"] == pytest.approx(plain, rel=1e-5) and plain[1] != plain[0]
    assert losses["bf16", "none"] == pytest.approx(plain, rel=0.05) and losses["bf16", "none"] != plain
    for precision in ("fp32", "bf16"):
        work = train_step.naive(given, precision)
        work()
        work()


def test_the_cases() -> None:
    names = [case.name for case in train_step.cases(settings())]
    assert names == [
        "pre-training step fp32, batch 4, 8 frames",
        "pre-training step fp32, batch 4, 8 frames, recompute",
        "pre-training step bf16, batch 4, 8 frames",
        "pre-training step bf16, batch 4, 8 frames, recompute",
    ]
    assert [case.naive is None for case in train_step.cases(settings())] == [False, True, False, True]
    given = settings("train.precision=bf16", "train.activation_checkpointing=offload")
    (case,) = train_step.cases(given)
    assert case.name == "pre-training step bf16, batch 4, 8 frames, offload" and case.naive is None
    assert pretraining(given, **case.ours.arguments) == pretraining(given)


@pytest.mark.usefixtures("in_this_process")
def test_side_by_side() -> None:
    given = settings("train.precision=fp32")
    row = measure(train_step.cases(given)[0], given)
    assert row.naive_over_ours == row.naive_s / row.ours_s and row.ours_s > 0
    assert row.limit_s is None and row.peer_s is None


@pytest.mark.parametrize(
    "override",
    [
        "aggregation.frame_match=mean",
        "aggregation.order=sorted",
        "objective.momentum=0.0",
        "objective.losses=[vtc, vtm]",
        "objective.queue_size=13",
        "objective.queue_size=0",
        "optim.clip_norm=1.0",
        "optim.layer_decay=0.9",
        "optim.freeze=[visual_encoder]",
    ],
)
def test_what_the_released_code_cannot_do_stands_alone(override: str) -> None:
    given = settings(override)
    assert has_reference_step(pretraining(settings())) and not has_reference_step(pretraining(given))
    assert all(case.naive is None for case in train_step.cases(given))


@pytest.mark.parametrize(
    ("override", "said"),
    [("train.accumulate=2", r"train\.accumulate: what is measured"), ("train.precision=fp16", r"fp16 needs a GPU")],
)
def test_what_cannot_be_measured_is_refused(override: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        train_step.cases(settings(override))


def test_another_tasks_model_is_pretrained() -> None:
    given = Settings("configs/debug/stories.yaml", ("data.root=nowhere",), "cpu", threads=1, rounds=1)
    config = pretraining(given)
    assert config.task == "pretrain" and config.objective.losses == ("vtc", "vtm", "cap")
    assert config.model.width == 96 and config.train.batch_size > 1


def test_a_batch_is_padded_as_by_a_tokenizer() -> None:
    batch = random_batch(pretraining(settings("train.batch_size=32", "objective.queue_size=32")))
    lengths = batch["mask"].sum(dim=1)
    assert lengths.min() >= 30 and lengths.max() == batch["ids"].shape[1] <= 64 and len(set(lengths.tolist())) > 8
    assert torch.equal(batch["ids"] > 0, batch["mask"].bool())
    last = batch["ids"].gather(1, lengths[:, None] - 1)
    assert (last == train_step.SEP).all() and (batch["ids"] == train_step.SEP).sum() == 32
    assert torch.equal(batch["video"], random_batch(pretraining(settings("train.batch_size=32")))["video"])
