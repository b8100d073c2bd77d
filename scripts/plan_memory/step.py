"""One process's training step of a configuration without values, and what memory it takes on a GPU.

Task, objectives and optimizer step are the real ones. Tensors have sizes but no values (torch's fake tensors), so that
nothing is computed, and no memory is needed for it. They are a CPU's, whose autocast rounds the same operations of ours
as a GPU's; where our code asks for the device it is told a GPU (`on_gpu.py`). Not counted, as no operation shows them:
what kernels take for themselves while they run, libraries' workspaces, and the first step of a process.
"""

import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from configs.aggregation import AggregationConfig
from configs.evaluation import CaptioningConfig
from configs.recognition import RecognitionEvaluationConfig
from configs.schema import TASKS, CaptionConfig, PretrainConfig, RecognitionConfig, RunConfig, VqaConfig
from datasets.annotations.timed_words import NUM_CLIPS
from datasets.objects.along import BOXES, CLASSES, TRAJECTORY_IDS
from datasets.samples import Clip
from engine.precision import autocast, resolve_precision
from engine.step import TrainingStep
from models.parts.cost import check_countable
from models.systems import piece
from scripts.plan_memory.live import BLOCK, LiveMemory, on_same_device
from scripts.plan_memory.on_gpu import AsOnGpu
from scripts.plan_memory.recognition import PlannedRecognition, trains_in_steps
from tasks.base import PairTask
from tasks.caption import CaptionTask
from tasks.clips import embed_clip
from tasks.pretrain import PretrainTask
from tasks.retrieval import RetrievalTask
from tasks.vqa import VqaTask, question_tokens

CPU, META = torch.device("cpu"), torch.device("meta")
WORD = "a"
ANSWER_TOKENS, QUESTIONS_A_VIDEO = 10, 10
"""What is assumed of answers, and of the questions about a video where all of them are one sample."""


@dataclass(frozen=True)
class Need:
    """Bytes of one process: those at its peak by kind, those alive between steps, and DDP's second gradients."""

    at_peak: dict[str, int]
    between_steps: int
    buckets: int

    @property
    def total(self) -> int:
        """All bytes at the peak, which is what `torch.cuda.max_memory_allocated` says."""
        return sum(self.at_peak.values()) + self.buckets


def count(config: RunConfig, rows: int, processes: int, text_tokens: int, block: int = BLOCK) -> Need:
    """What a step of `rows` samples a micro-batch takes on each of `processes` GPUs, with texts of `text_tokens`.

    Where nothing is trained in steps, what it takes to encode `rows` videos.
    """
    _check_plannable(config.aggregation)
    config = _with_largest_budget(config)
    task = make_task(config, made_on=META, device=CPU)
    if not trains_in_steps(config):
        return _count_encoding(task, config, rows, text_tokens, block)
    with FakeTensorMode(), AsOnGpu(text_tokens), LiveMemory(block) as live:
        on_same_device(task, CPU)
        step = TrainingStep(cast(Any, task.train()), config, CPU)
        live.name("parameters", task.parameters())
        if isinstance(task, PairTask):
            for kind, module in task.objectives.holds().items():
                if module not in list(task.modules()):
                    on_same_device(module, CPU)
                live.name(kind, [*module.parameters(), *module.buffers()])

        _make_optimizer_states(step, live)
        batch = batch_of(config, rows, text_tokens)
        live.name("inputs", _tensors_of(batch))
        _tell_apart(task, step.trainable, live)
        with _processes(processes):
            batches = [dict(batch) for _ in range(config.train.accumulate)]
            live.forget_peak()
            between = sum(live.now.values())
            task.begin_step(0, 0.0, batches)
            step(batches)

    bucketed = sum(parameter.nbytes for parameter in step.trainable) if processes > 1 else 0
    return Need({kind: size for kind, size in live.at_peak.items() if size}, between, bucketed)


def _check_plannable(aggregation: AggregationConfig) -> None:
    """Refuse reducers whose plans need the values of tokens, which are not here."""
    check_countable(aggregation)
    if aggregation.is_ragged:
        raise ValueError(
            f"aggregation.reducer: {aggregation.reducer!r} decides by what a video shows, which is not known here; "
            f"plan with aggregation.reducer=run_length aggregation.keep={aggregation.keep}, which leaves as many tokens"
        )


def _with_largest_budget(config: RunConfig) -> RunConfig:
    """The configuration whose every step keeps as many tokens as the largest that training draws, if it draws any."""
    drawn = config.aggregation.train_keep
    if drawn is None or not trains_in_steps(config):
        return config
    return replace(config, aggregation=replace(config.aggregation, keep=drawn[1], train_keep=None))


def _count_encoding(task: Any, config: RunConfig, rows: int, text_tokens: int, block: int) -> Need:
    """What encoding a batch without gradient takes, which is all that a probe asks of a GPU."""
    with FakeTensorMode(), AsOnGpu(text_tokens), LiveMemory(block) as live:
        on_same_device(task, CPU)
        live.name("parameters", task.parameters())
        batch = batch_of(config, rows, text_tokens)
        live.name("inputs", _tensors_of(batch))
        live.forget_peak()
        between = sum(live.now.values())

        live.kind = "activations"
        with torch.no_grad(), autocast(CPU, resolve_precision(config.train.precision, CPU)):
            embed_clip(task.eval().model, batch["clip"])
    return Need({kind: size for kind, size in live.at_peak.items() if size}, between, buckets=0)


AnyTask = PretrainTask | RetrievalTask | VqaTask | CaptionTask | PlannedRecognition


def make_task(config: RunConfig, made_on: torch.device, device: torch.device) -> AnyTask:
    """The configured task for `device`, its weights `made_on` one, with a vocabulary of one word; reads no data."""
    with TemporaryDirectory() as folder:
        make_tokenizer = piece(config.model.name, "tokenizer").make_tokenizer
        make_tokenizer([WORD], config.model.text.vocab_size).save(Path(folder))
        text = replace(config.model.text, tokenizer=folder)
        if getattr(text, "weights", None) is not None:
            without_file: dict[str, Any] = {"weights": None}  # of the text tower's own
            text = replace(text, **without_file)
        config = replace(config, checkpoint=None, model=replace(config.model, text=text))

        if isinstance(config, CaptionConfig):
            config = replace(config, evaluation=CaptioningConfig())  # its scorer may need what is not installed

        task_class = pkgutil.resolve_name(TASKS[config.task].task)
        if isinstance(config, RecognitionConfig):
            config, task_class = replace(config, evaluation=RecognitionEvaluationConfig()), PlannedRecognition

        with made_on:
            task = task_class(config, device)
    task.tags = None  # a batch has them already, and their file need not be there
    return task


def batch_of(config: RunConfig, rows: int, text_tokens: int) -> dict[str, Any]:
    """A micro-batch as the loader gives it: uint8 pixels (B, T, 3, H, W) and texts that fill `text_tokens`."""
    video = config.video
    pixels = torch.empty((rows, video.num_frames, 3, video.image_size, video.image_size), dtype=torch.uint8)
    clip = Clip.of_pixels(pixels)._replace(extras=_extras(config, rows))
    batch: dict[str, Any] = {"clip": clip, "index": torch.arange(rows)}
    if config.reads_labels:
        return {**batch, "row": torch.arange(rows)}
    if config.data.tags is not None:
        nouns = torch.arange(text_tokens) % 2 == 1
        batch["tags"] = (nouns.expand(rows, -1), ~nouns.expand(rows, -1))
    if not isinstance(config, VqaConfig):
        sorts = isinstance(config, PretrainConfig) and config.objective.sorts
        of_each = NUM_CLIPS if sorts else 1
        return {**batch, "text": [_words(text_tokens)] * (rows * of_each)}

    of_each = QUESTIONS_A_VIDEO if config.objective.questions == "all" else 1
    asked = torch.arange(rows * of_each)

    return {
        **batch,
        "text": [_words(question_tokens(config))] * len(asked),
        "text_sample": asked // of_each,
        "answers": [_words(ANSWER_TOKENS)] * len(asked),
        "weights": torch.ones(len(asked)),
        "asked": asked,
    }


def _extras(config: RunConfig, rows: int) -> dict[str, Tensor]:
    """Boxes of objects on every frame, if the configuration names a file of them; the file is not read."""
    if config.data.objects is None:
        return {}
    model: Any = config.model  # sections of models that read objects say how many
    frames, objects = config.video.num_frames, model.objects_per_frame
    corners = torch.tensor([0.0, 0.0, config.video.image_size / 2, config.video.image_size / 2])
    return {
        BOXES: corners.expand(rows, frames, objects, -1).clone(),
        CLASSES: torch.arange(1, objects + 1).expand(rows, frames, -1).clone(),
        TRAJECTORY_IDS: torch.arange(1, model.num_trajectories + 1).expand(rows, -1).clone(),
    }


def _tensors_of(batch: dict[str, Any]) -> list[Tensor]:
    clip: Clip = batch["clip"]
    loose = [value for value in batch.values() if isinstance(value, Tensor)]
    return [clip.pixels, clip.times, *clip.extras.values(), *loose]


def _words(tokens: int) -> str:
    """A text of that many tokens, [CLS] and [SEP] counted."""
    return " ".join([WORD] * (tokens - 2))


def _make_optimizer_states(step: TrainingStep, live: LiveMemory) -> None:
    """As they are from the second step on."""
    for parameter in step.trainable:
        parameter.grad = torch.empty_like(parameter)
    step.optimizer.step()
    step.optimizer.zero_grad()
    states = step.optimizer.state.values()
    live.name("optimizer", [value for state in states for value in state.values() if isinstance(value, Tensor)])


def _tell_apart(task: nn.Module, trainable: list[nn.Parameter], live: LiveMemory) -> None:
    """What a forward pass makes is an activation, what is made after it is not, and gradients are gradients."""

    def named(kind: Any) -> Any:
        return lambda *_: setattr(live, "kind", kind)

    task.register_forward_pre_hook(named("activations"))
    task.register_forward_hook(named("temporaries"))
    for parameter in trainable:
        parameter.register_post_accumulate_grad_hook(
            lambda own: live.name("gradients", [] if own.grad is None else [own.grad])
        )


@contextmanager
def _processes(number: int) -> Iterator[None]:
    """As process 0 of that many, whose collectives return at once; `ValueError` where torch has none such."""
    if number == 1:
        yield
        return
    try:
        # Private to torch's own tests, which use it for the same purpose; there is no public one.
        from torch.testing._internal.distributed.fake_pg import FakeStore
    except ImportError as error:
        raise ValueError("--processes: this torch cannot pretend to be several; count with --processes 1") from error
    dist.init_process_group("fake", rank=0, world_size=number, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
