"""What a benchmark is run with: the model's configuration, the device, and how often."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.load import apply_overrides, from_dict, load_any
from configs.models.testa import as_testa
from configs.schema import (
    CONFIG_CLASSES,
    AggregationConfig,
    EvaluationConfig,
    PretrainConfig,
    RunConfig,
    TestaConfig,
    VideoConfig,
)

# Used without --config: settings without a default need a value, though no benchmark reads all of them.
DEFAULTS: dict[str, Any] = {
    "aggregation": {"reducer": "geometry", "frames_per_block": 1, "patches_per_block": 12},
    "data": {"root": "."},
    "optim": {"lr": 1e-5},
    "train": {"batch_size": 2, "max_epochs": 1},
}


@dataclass(frozen=True)
class Settings:
    """The command line of a benchmark; JSON-able, as every measured variant has it in a process of its own.

    Attributes:
        config: a YAML file of any task; None for ViT-B/16 at 224 px, 32 frames, BERT-base and the paper's aggregation.
        overrides: `a.b=c` on top of it.
        device: `cpu` or `cuda`.
        threads: of a CPU, in each process.
        rounds: how often each variant is timed.
        data: a folder of videos for `decode` and `load`; None to make some.
    """

    config: str | None
    overrides: tuple[str, ...]
    device: str
    threads: int
    rounds: int
    data: str | None = None


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(PretrainConfig):
    """What overrides without --config may set: pre-training with TESTA for 32 frames, and how it is evaluated."""

    # What is measured evaluates retrieval, which pre-training itself does not.
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)  # type: ignore[assignment]


def configured(settings: Settings) -> RunConfig:
    """The whole configuration, of the file's task or a `BenchmarkConfig`; ValueError as for any configuration."""
    overrides = list(settings.overrides)
    if settings.config is not None:
        return load_any(CONFIG_CLASSES, Path(settings.config), overrides)
    return from_dict(BenchmarkConfig, apply_overrides(DEFAULTS, overrides, BenchmarkConfig), "command line")


def sections(settings: Settings) -> tuple[TestaConfig, VideoConfig, AggregationConfig]:
    """The configured model, input and aggregation."""
    config = configured(settings)
    return as_testa(config.model), config.video, config.aggregation
