"""The recipes of a comparison as configurations: how each task is trained, and the encoder that all agree on."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.reducers.settings import Comparison, Recipe
from configs.load import load
from configs.models.base import ModelConfig
from configs.schema import PretrainConfig, RetrievalConfig, RunConfig, VideoConfig, VqaConfig

CONFIG_CLASSES: dict[str, type[RunConfig]] = {
    "pretrain": PretrainConfig,
    "retrieval": RetrievalConfig,
    "vqa": VqaConfig,
}


def overrides_of(comparison: Comparison, task: str) -> tuple[str, ...]:
    """One recipe's overrides, over the overrides of all."""
    recipe: Recipe = getattr(comparison, task)
    return layered(comparison.overrides, recipe.overrides)


def layered(*layers: Sequence[str]) -> tuple[str, ...]:
    """Overrides `a.b=c` of which a later layer replaces what an earlier one says of the same key."""
    by_key = {override.partition("=")[0]: override for layer in layers for override in layer}
    return tuple(by_key.values())


def retrieval_of(comparison: Comparison) -> RetrievalConfig:
    """The configuration that retrieval is trained with; its encoder is the one of all recipes.

    Pre-training may show it fewer frames. ValueError if the recipes do not agree, or begin with a reducer.
    """
    configs = {}
    for task, config_class in CONFIG_CLASSES.items():
        recipe: Recipe = getattr(comparison, task)
        if recipe.config is None:
            continue
        configs[task] = load(config_class, Path(recipe.config), list(overrides_of(comparison, task)))
        if configs[task].aggregation.reducer != "none":
            raise ValueError(f"overrides: add aggregation.reducer=none; {task} is to begin without a reducer")

    if len({config.model for config in configs.values()}) > 1:
        raise ValueError(f"overrides: {', '.join(configs)} have to agree on the model; set it for all")
    if "vqa" in configs and configs["retrieval"].video != configs["vqa"].video:
        raise ValueError("overrides: retrieval and vqa have to agree on video; set it for both")

    retrieval = configs["retrieval"]
    assert isinstance(retrieval, RetrievalConfig)
    return retrieval


def encoder_of(comparison: Comparison) -> tuple[ModelConfig, VideoConfig]:
    """The video encoder that all recipes train, and what retrieval and vqa show it; ValueError as `retrieval_of`."""
    config = retrieval_of(comparison)
    return config.model, config.video
