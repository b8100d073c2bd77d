"""What a training step has and does, read off the configured model itself on the meta device: nothing is computed."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from configs.schema import ObjectiveConfig, TaskConfig
from configs.training import PairObjectiveConfig
from datasets.samples import Clip
from engine.parameters import freeze
from models.parts.cost import check_countable
from models.parts.tokenizer import TextTokenizer
from tasks.build import build_model
from tasks.objectives.table import objective_class

FLOAT = torch.float32.itemsize
MOMENTS = 2
"""Tensors of a parameter's size that AdamW keeps, besides a count of steps."""


@dataclass(frozen=True)
class Sizes:
    """Of one process and one step.

    Attributes:
        parameters: trained ones.
        gradient_bytes: of theirs, which are float32 in every precision.
        weight_bytes: of a checkpoint's weights: the model, its twin, the queue.
        optimizer_bytes: of a checkpoint's optimizer.
        rows: of one forward pass.
        video_bytes: of one video's tokens as matching sends them, float32 in every precision too.
        text_tokens: of one text.
        flops: of a step forward and backward, two a multiply-accumulate, with what is recomputed and the twin.
    """

    parameters: int
    gradient_bytes: int
    weight_bytes: int
    optimizer_bytes: int
    rows: int
    video_bytes: int
    text_tokens: int
    flops: int


def sizes_of(config: TaskConfig, processes: int) -> Sizes:
    """Build the configured model and losses without memory, and train them for one forward pass.

    `ValueError` for a batch that the processes cannot share evenly.
    """
    if isinstance(config.objective, PairObjectiveConfig) and not isinstance(config.objective, ObjectiveConfig):
        raise ValueError(
            f"objective.name: what processes exchange by {config.objective.name} is not counted here, only by momentum"
        )
    check_countable(config.aggregation)
    train, parts = config.train, processes * config.train.accumulate
    if train.batch_size % parts:
        raise ValueError(
            f"train.batch_size: {train.batch_size} is not a multiple of {parts}, that is train.accumulate "
            f"{train.accumulate} times {processes} processes"
        )

    if train.activation_checkpointing == "offload":  # computes as much, but asks for real memory
        config = replace(config, train=replace(train, activation_checkpointing="recompute"))
    # What is counted does not depend on which words these are.
    words = cast(TextTokenizer, SimpleNamespace(enc_id=0, dec_id=0, sep_id=0))
    with torch.device("meta"):
        model = build_model(config, words)
    module = nn.ModuleDict({"model": model})
    if isinstance(config.objective, ObjectiveConfig):
        objective = objective_class(config.objective.name)(model, config.objective, config.positives, config.seed)
        module["objectives"] = objective.to("meta")
    freeze(module, config.optim.freeze)
    rows, tokens = train.batch_size // parts, text_tokens(config)
    with FlopCounterMode(display=False) as counter:
        video_bytes = _train_once(config, module, rows, tokens)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = sum(parameter.numel() * FLOAT for parameter in trained)
    # Parameters of several names are one tensor, in memory and in a file.
    kept = {id(tensor): tensor.nbytes for tensor in module.state_dict(keep_vars=True).values()}

    return Sizes(
        parameters=sum(parameter.numel() for parameter in trained),
        gradient_bytes=gradients,
        weight_bytes=sum(kept.values()),
        optimizer_bytes=MOMENTS * gradients + FLOAT * len(trained),
        rows=rows,
        video_bytes=video_bytes // rows,
        text_tokens=tokens,
        flops=counter.get_total_flops() * train.accumulate,
    )


def text_tokens(config: TaskConfig) -> int:
    """How many tokens a text has at most, as the configuration cuts it; a word counts as one where words are cut."""
    return min(config.data.max_tokens or config.data.max_words, config.model.text.max_positions)


def _train_once(config: TaskConfig, module: nn.ModuleDict, rows: int, tokens: int) -> int:
    """Forward and backward of one pass; the bytes of its video tokens."""
    model, video = cast(Any, module["model"]), config.video
    shape = (rows, video.num_frames, 3, video.image_size, video.image_size)
    pixels = torch.empty(shape, dtype=torch.uint8, device="meta")
    ids = torch.empty(rows, tokens, dtype=torch.int64, device="meta")
    _loss(config, module, pixels, ids).backward()
    with torch.no_grad():
        return model.video_tokens(pixels).nbytes


def _loss(config: TaskConfig, module: nn.ModuleDict, pixels: Tensor, ids: Tensor) -> Tensor:
    model, mask = cast(Any, module["model"]), torch.ones_like(ids)
    if "objectives" in module:
        objectives = cast(Any, module["objectives"])
        batch = {
            "clip": Clip.of_pixels(pixels),
            "ids": ids,
            "mask": mask,
            "index": torch.arange(len(ids), device="meta"),
        }
        objectives.begin_step(model, 0, 0.0, [batch], [torch.ones(ids.shape, dtype=torch.int64)])
        losses = objectives(model, batch)
        return torch.stack(list(losses.values())).sum()

    context = model.video_tokens(pixels)
    if config.reads_questions:  # an answer is counted as long as its question
        context = model.ground_text(context, ids, mask)

    return model.context_loss(context, ids, mask).sum()
