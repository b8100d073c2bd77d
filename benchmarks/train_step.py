"""A step of pre-training with all of its losses, the twin, the queue and the optimizer, on random pixels and words.

Ours is the engine's own step with the task's own model and objectives; nothing but the reading of files is left out.
The reference's is `naive_step.py`, on the same batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from benchmarks.measure import Case, Variant
from benchmarks.naive_step import NaiveStep, has_reference_step
from benchmarks.settings import Settings, configured
from configs.schema import DataConfig, PretrainConfig
from datasets.samples import Clip
from engine.heartbeat import Heartbeat
from engine.host_memory import keep_freed_memory
from engine.interruption import Interruption
from engine.loop import Trainer
from engine.precision import resolve_precision
from engine.task import Task
from models.parts.pixels import normalise_pixels
from models.parts.tokenizer import TextTokenizer
from tasks.build import build_model
from tasks.objectives.table import objective_class

CAPTION_TOKENS = (30, 64)
CLS, SEP, FIRST_WORD = 1, 2, 3


def cases(settings: Settings) -> list[Case]:
    """In float32 and bfloat16, unless the configuration names one; the reference cannot recompute activations."""
    config = pretraining(settings)
    named, checkpointing = config.train.precision, config.train.activation_checkpointing
    return [
        _case(config, precision, way)
        for precision in (("fp32", "bf16") if named == "auto" else (named,))
        for way in (("none", "recompute") if checkpointing == "none" else (checkpointing,))
    ]


def _case(config: PretrainConfig, precision: str, checkpointing: str) -> Case:
    train = config.train
    name = f"pre-training step {precision}, batch {train.batch_size}, {config.video.num_frames} frames"
    if checkpointing != "none":
        name = f"{name}, {checkpointing}"
    naive = None
    if checkpointing == "none" and has_reference_step(config):
        naive = Variant(f"{__name__}:naive", {"precision": precision})
    return Case(
        name, Variant(f"{__name__}:ours", {"precision": precision, "activation_checkpointing": checkpointing}), naive
    )


def pretraining(settings: Settings, **train: Any) -> PretrainConfig:
    """The configured pre-training, with `train` over its section; another task's is pre-trained with default losses."""
    config = configured(settings)
    resolve_precision(config.train.precision, torch.device(settings.device))
    if config.train.accumulate > 1:
        raise ValueError("train.accumulate: what is measured is a step of one batch; leave it out")
    parts = {name: getattr(config, name) for name in ("optim", "model", "video", "aggregation", "seed")}
    if isinstance(config, PretrainConfig):
        parts["objective"] = config.objective
    return PretrainConfig(data=DataConfig(root="."), train=replace(config.train, **train), **parts)


class SpecialWords(NamedTuple):
    """All that a model wants to know of its tokenizer."""

    enc_id: int
    dec_id: int
    sep_id: int = SEP


def special_words(config: PretrainConfig) -> SpecialWords:
    """The last words of the vocabulary, as in BERT's with two more."""
    return SpecialWords(config.model.text.vocab_size - 1, config.model.text.vocab_size - 2)


class RandomPairs(nn.Module):
    """What `tasks/base.py` makes of a configuration, with ids for texts: a model, its objectives, and their losses."""

    best_metric = None
    steps_per_epoch = 1_000_000  # more than any warm-up has

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        torch.manual_seed(config.seed)
        self.model = build_model(config, cast(TextTokenizer, special_words(config)))
        objective = objective_class(config.objective.name)
        self.objectives = objective(self.model, config.objective, config.positives, config.seed)
        if config.train.compile:
            self.model.compile_towers()

    def begin_step(self, step: int, epoch: float, batches: Sequence[dict[str, Any]]) -> None:
        """The twin follows, and the tokens of the step's texts are counted."""
        masks = [batch["mask"] for batch in batches]
        self.objectives.begin_step(self.model, step, epoch, batches, masks)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of a batch, by name."""
        return self.objectives(self.model, {**batch, "clip": Clip.of_pixels(batch["video"])})


def random_batch(config: PretrainConfig) -> dict[str, Tensor]:
    """uint8 pixels (B, T, 3, H, W), and captions of 30 to 64 tokens, or as many as the model takes, padded to one."""
    generator = torch.Generator().manual_seed(config.seed)
    batch, video, text = config.train.batch_size, config.video, config.model.text
    shape = (batch, video.num_frames, 3, video.image_size, video.image_size)
    shortest, longest = (min(tokens, text.max_positions) for tokens in CAPTION_TOKENS)
    length = torch.randint(shortest, longest + 1, (batch, 1), generator=generator)
    position = torch.arange(int(length.max()))
    ids = torch.randint(FIRST_WORD, text.vocab_size - 2, (batch, len(position)), generator=generator)
    ids = ids.masked_fill(position == length - 1, SEP).masked_fill(position >= length, 0)
    ids[:, 0] = CLS

    return {
        "video": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        "ids": ids,
        "mask": (position < length).long(),
        "index": torch.arange(batch),
    }


def make_trainer(config: PretrainConfig, device: torch.device) -> Trainer:
    """The engine at the first step of a run; nothing of its folder is left."""
    with TemporaryDirectory() as folder:
        task = RandomPairs(config).to(device).train()
        heartbeat = Heartbeat(Path(folder) / "heartbeats", 0)
        run = replace(config, output_dir=folder)
        trainer = Trainer(cast(Task, task), run, device, None, heartbeat, Interruption())
        trainer.log.close()
    return trainer


def endlessly(batch: dict[str, Tensor]) -> Iterator[dict[str, Any]]:
    """The same batch for every step, as a loader gives it: in memory that a GPU can read from, if there is one."""
    if torch.cuda.is_available():
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
    return (dict(batch) for batch in repeat(batch))


def ours(settings: Settings, precision: str, activation_checkpointing: str) -> Callable[[], None]:
    """`Trainer.train_step`."""
    config = pretraining(settings, precision=precision, activation_checkpointing=activation_checkpointing)
    device = torch.device(settings.device)
    trainer, batches = make_trainer(config, device), endlessly(random_batch(config))
    if device.type == "cpu":
        # Only now: what making the model has freed is to be seen as taken again by the step.
        keep_freed_memory()
    return lambda: trainer.train_step(batches)


def naive(settings: Settings, precision: str) -> Callable[[], None]:
    """The released code's step. Its loaders hand out normalised pixels."""
    config = pretraining(settings, precision=precision)
    torch.manual_seed(config.seed)
    words = special_words(config)
    step = NaiveStep(config, words.enc_id, words.dec_id, torch.device(settings.device))
    batches = endlessly(normalised(config, random_batch(config)))

    def work() -> None:
        step(next(batches))

    return work


def normalised(config: PretrainConfig, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with pixels as float32 of zero mean and unit deviation."""
    pixels = normalise_pixels(batch["video"], config.video.pixel_mean, config.video.pixel_std, torch.float32)
    return {**batch, "video": pixels}
