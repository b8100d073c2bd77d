"""The systems, and where the pieces of each are.

A piece is named as "module:attribute" and imported when it is first asked for, so that a run imports its own system
alone. Adding a system adds a line here, its section to `configs.schema.MODELS`, and a folder.
"""

import pkgutil
from typing import Any, NamedTuple

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.base import ModelConfig
from models.parts.cost import Cost
from models.parts.published import Published


class System(NamedTuple):
    """Where to find what makes a system.

    Attributes:
        build: (configuration of a task, tokenizer) -> the task's model with fresh weights; see `models.protocols`.
        tokenizer: the module with `load_tokenizer(folder)` and `make_tokenizer(texts, vocab_size)`.
        weights: the `models.checkpoints.load.WeightFormats` that says which published files start such a model.
        cost: (model, video, aggregation sections) -> `models.parts.cost.Cost` of encoding one video.
        convert: the module that makes published files our checkpoints and back, as `models.tvts.conversion` does;
            None where `scripts.convert_checkpoint` knows no such files.
        published: the tuple of `models.parts.published.Published` that `scripts.list_models` lists; None where none is.
    """

    build: str
    tokenizer: str
    weights: str
    cost: str
    convert: str | None = None
    published: str | None = None


SYSTEMS: dict[str, System] = {
    "testa": System(
        build="models.testa.build:build_model",
        tokenizer="models.parts.tokenizer",
        weights="models.testa.weights.formats:FORMATS",
        cost="models.testa.cost:count",
        convert="models.testa.weights.conversion",
        published="models.testa.published:PUBLISHED",
    ),
    "umt": System(
        build="models.umt.build:build_model",
        tokenizer="models.umt.tokenizer",
        weights="models.umt.formats:FORMATS",
        cost="models.umt.cost:count",
        convert="models.umt.conversion",
        published="models.umt.published:PUBLISHED",
    ),
    "tvts": System(
        build="models.tvts.build:build_model",
        tokenizer="models.parts.clip.tokenizer",
        weights="models.tvts.formats:FORMATS",
        cost="models.tvts.cost:count",
        convert="models.tvts.conversion",
        published="models.tvts.published:PUBLISHED",
    ),
    "stoa": System(
        build="models.stoa.build:build_model",
        tokenizer="models.parts.clip.tokenizer",
        weights="models.stoa.formats:FORMATS",
        cost="models.stoa.cost:count",
        convert="models.stoa.conversion",
        published="models.stoa.published:PUBLISHED",
    ),
}


def piece(system: str, name: str) -> Any:
    """The piece `name` (a field of `System`) of a system, imported now."""
    return pkgutil.resolve_name(getattr(SYSTEMS[system], name))


def count(model: ModelConfig, video: VideoConfig, aggregation: AggregationConfig) -> Cost:
    """The cost of encoding one video of the configured size, as the model's system counts it."""
    return piece(model.name, "cost")(model, video, aggregation)


def published_weights() -> dict[str, tuple[Published, ...]]:
    """The published weights by system, of those that have any."""
    return {name: piece(name, "published") for name, system in SYSTEMS.items() if system.published is not None}
