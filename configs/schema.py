"""The typed sections of every configuration file: one frozen dataclass a section, one a task.

The YAML that fills them is read in `configs/load.py`. Checks that need only one section live in that section's
`__post_init__`; checks that need several live in the task's. A check raises `ValueError`, whose text begins with the
dotted key it is about, so that the loader can add the file it came from.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

# Some are only passed on: importers need not know in which of the two files a section is.
from configs.model import (
    AggregationConfig,
    ModelConfig,
    TextConfig as TextConfig,
    VideoConfig,
    block_schedules as block_schedules,
    check_encoder,
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the pairs are. `manifest` and `eval_manifest` are JSONL files, relative ones in `root`.

    A relative `video` of a manifest is looked for in `videos` (by default `<root>/videos`). Without `eval_manifest`
    evaluation runs on `manifest` and says so. `cache: memory` keeps decoded clips of small sets, up to `cache_gb`.
    """

    root: str
    manifest: str = "captions.jsonl"
    eval_manifest: str | None = None
    videos: str | None = None
    max_words: int = 64
    cache: Literal["none", "memory"] = "none"
    cache_gb: float = 2.0

    def __post_init__(self) -> None:
        if self.max_words < 1:
            raise ValueError(f"data.max_words: {self.max_words} leaves no word of a caption")
        if self.cache == "none" and self.cache_gb != 2.0:
            raise ValueError("data.cache_gb: has no effect unless data.cache is memory")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and a cosine by step. `layer_decay` < 1 lowers the rate towards the input.

    `freeze` lists name prefixes of parameters, such as `visual_encoder` or `text_encoder.embeddings`.
    """

    lr: float
    min_lr: float = 0.0
    warmup_lr: float = 0.0
    warmup_steps: int = 0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float | None = None
    layer_decay: float = 1.0
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("lr", "min_lr", "warmup_lr", "warmup_steps", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"optim.{name}: {getattr(self, name)} is negative")
        if self.min_lr > self.lr:
            raise ValueError(f"optim.min_lr: {self.min_lr} is above optim.lr {self.lr}")
        if self.warmup_lr and not self.warmup_steps:
            raise ValueError("optim.warmup_lr: has no effect without optim.warmup_steps")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"optim.clip_norm: {self.clip_norm} leaves no gradient; null does not clip")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"optim.layer_decay: {self.layer_decay} is not in (0, 1]; 1 is the same rate everywhere")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop. `batch_size` is that of one optimizer step over all processes; `accumulate` cuts it into that many
    forward passes. `precision: auto` is bf16 on GPUs from sm_80 on, fp16 with loss scaling on older ones, fp32 on CPUs.
    `eval_every` is in epochs, `save_every` and `log_every` in steps; a checkpoint is written after every epoch anyway.
    """

    batch_size: int
    max_epochs: int
    accumulate: int = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    activation_checkpointing: Literal["none", "recompute", "offload"] = "none"
    compile: bool = False
    deterministic: bool = False
    workers: int = 4
    eval_every: int = 1
    save_every: int | None = None
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_epochs", "accumulate", "eval_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}: {getattr(self, name)} is less than 1")
        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"train.save_every: {self.save_every} is less than 1; null saves after every epoch only")
        if self.workers < 0:
            raise ValueError(f"train.workers: {self.workers} is negative; 0 reads in the main process")
        if self.batch_size % self.accumulate:
            raise ValueError(f"train.accumulate: {self.accumulate} does not divide train.batch_size {self.batch_size}")
        if self.compile and self.activation_checkpointing == "offload":
            raise ValueError(
                "train.compile: offloaded checkpoints cannot be traced; use activation_checkpointing: recompute"
            )


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Contrastive (`vtc`), matching (`vtm`) and captioning (`cap`) losses, each of weight 1.

    `momentum` is the twin's, `alpha` the share of its soft targets after a ramp of `alpha_ramp_epochs`.
    `vtc_keys: local` and `negatives: same_rank` are the reference's; results then depend on the number of processes.
    """

    losses: tuple[Literal["vtc", "vtm", "cap"], ...]
    queue_size: int
    alpha: float = 0.4
    alpha_ramp_epochs: float = 1.0
    momentum: float = 0.995
    temperature: float = 0.07
    label_smoothing: float = 0.1
    vtc_keys: Literal["all", "local"] = "all"
    negatives: Literal["all", "same_rank"] = "all"

    def __post_init__(self) -> None:
        if not self.losses or len(set(self.losses)) != len(self.losses):
            raise ValueError(f"objective.losses: {list(self.losses)} must name each loss once, and at least one")
        if self.queue_size < 0:
            raise ValueError(f"objective.queue_size: {self.queue_size} is negative; 0 is no queue")


def check_objective(objective: ObjectiveConfig, train: TrainConfig) -> None:
    """Refuse what the losses cannot be taken of."""
    if "vtm" in objective.losses and train.batch_size // train.accumulate < 2:
        raise ValueError(
            "train.batch_size: matching needs a second sample as negative; make it 2 or more, or leave out 'vtm'"
        )
    needed = {"alpha": "vtc", "momentum": "vtc", "vtc_keys": "vtc", "negatives": "vtm", "label_smoothing": "cap"}
    for name, loss in needed.items():
        if loss not in objective.losses and getattr(objective, name) != getattr(ObjectiveConfig, name):
            raise ValueError(f"objective.{name}: has no effect without {loss!r} in objective.losses")
    if "vtm" in objective.losses and "vtc" not in objective.losses:
        raise ValueError("objective.losses: 'vtm' draws its negatives by the similarities of 'vtc'; add that")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Retrieval evaluation: the `rerank` best of each direction are rescored by matching (0: cosine alone)."""

    batch_size: int = 8
    rerank: int = 128
    rerank_batch_size: int = 64
    best_metric: str = "t2v_mean_recall"

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("rerank", 0), ("rerank_batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"evaluation.{name}: {getattr(self, name)} is less than {least}")
        if not self.rerank and self.rerank_batch_size != 64:
            raise ValueError("evaluation.rerank_batch_size: has no effect with evaluation.rerank 0")
        # Higher must be better, so the median rank cannot choose a checkpoint.
        if not re.fullmatch("(t2v|v2t)_(r1|r5|r10|mean_recall)(_cosine)?", self.best_metric):
            raise ValueError(
                f"evaluation.best_metric: {self.best_metric!r} is none of t2v_r1, t2v_r5, t2v_r10, t2v_mean_recall, "
                "the same with v2t, and each of them with _cosine at its end"
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every task shares. `checkpoint` is a file or folder the weights start from, or the one to evaluate."""

    task: str

    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    checkpoint: str | None = None
    output_dir: str | None = None
    seed: int = 42
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        check_encoder(self.model, self.video, self.aggregation)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Pre-training: contrast, matching and captioning together."""

    task: Literal["pretrain"] = "pretrain"
    objective: ObjectiveConfig = field(
        default_factory=lambda: ObjectiveConfig(losses=("vtc", "vtm", "cap"), queue_size=57600, alpha_ramp_epochs=2.0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_objective(self.objective, self.train)


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(RunConfig):
    """Text-to-video retrieval: fine-tuning with contrast and matching, evaluation with reranking."""

    task: Literal["retrieval"] = "retrieval"
    objective: ObjectiveConfig = field(default_factory=lambda: ObjectiveConfig(losses=("vtc", "vtm"), queue_size=32))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_objective(self.objective, self.train)
        if "cap" in self.objective.losses:
            raise ValueError("objective.losses: retrieval has no decoder to caption with; leave 'cap' to pre-training")
        if "vtm" not in self.objective.losses and self.evaluation.rerank:
            raise ValueError(
                "evaluation.rerank: matching is not trained without 'vtm' in objective.losses; set it to 0"
            )
