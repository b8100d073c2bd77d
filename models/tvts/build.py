"""TVTSv2's model for each task, made from a configuration."""

from typing import Any

from torch import nn

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.tvts import TvtsConfig
from configs.schema import ObjectiveConfig, SortingObjectiveConfig, TaskConfig
from models.parts.clip.sizes import ImageTowerSizes, TextTowerSizes
from models.tvts.aggregation import ClipSchedules
from models.tvts.initialisation import start_from_projections
from models.tvts.model import Tvts
from models.tvts.sizes import TvtsSizes

TEMPERATURE = 0.05
"""Of a model that is not trained by contrast."""


def sizes_of(model: TvtsConfig, video: VideoConfig) -> TvtsSizes:
    """The sizes of a configuration; the embeddings of places and times are those of the configured clips."""
    image = ImageTowerSizes(
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        patch_size=model.patch_size,
        image_size=video.image_size,
        embed_dim=model.embed_dim,
        activation=model.activation,
    )

    text = TextTowerSizes(
        width=model.text.width,
        depth=model.text.depth,
        heads=model.text.heads,
        embed_dim=model.embed_dim,
        context=model.text.max_positions,
        vocab_size=model.text.vocab_size,
        activation=model.activation,
    )

    return TvtsSizes(
        image,
        text,
        num_frames=video.num_frames,
        raw_patches=model.raw_patches,
        mask_ratio=model.mask_ratio,
        sort_heads=model.sort_heads,
        trained_text_blocks=model.text.trained_blocks,
        num_transcripts=model.num_transcripts,
        motion=model.motion,
    )


def schedules_of(model: TvtsConfig, video: VideoConfig, aggregation: AggregationConfig) -> ClipSchedules:
    """Which frames and patches merge in clips of the configured size."""
    return ClipSchedules.of(aggregation, sizes_of(model, video).image, video.num_frames)


def build_model(config: TaskConfig, tokenizer: Any) -> Tvts:
    """The configured task's model with fresh weights; only the loss `sorting` needs the sorting head."""
    assert isinstance(config.model, TvtsConfig)
    if config.task not in ("pretrain", "retrieval", "recognition", "choice"):
        raise ValueError(f"model.name: tvts writes no text, so there is no {config.task} with it; take another model")
    objective = config.objective

    # Recognition trains on classes, not on pairs with texts.
    pairs = objective if isinstance(objective, ObjectiveConfig | SortingObjectiveConfig) else None
    if isinstance(objective, ObjectiveConfig) and set(objective.losses) - {"vtc"}:
        raise ValueError(
            f"objective.losses: {list(objective.losses)}: tvts has no head that matches and no decoder; leave vtc alone"
        )

    if config.aggregation.reducer == "run_length" and pairs is not None and "sorting" in pairs.losses:
        raise ValueError(
            "aggregation.reducer: the sorting head reads all patches of a clip, but run_length drops those that do not "
            "change; leave sorting out of objective.losses, or take another reducer"
        )

    model = Tvts(
        sizes_of(config.model, config.video),
        schedules_of(config.model, config.video, config.aggregation),
        sorting=pairs is not None and "sorting" in pairs.losses,
        temperature=TEMPERATURE if pairs is None else pairs.temperature,
        pixel_mean=config.video.pixel_mean,
        pixel_std=config.video.pixel_std,
        working_memory=config.video.working_memory,
        time_table=config.video.time_table,
    )

    if config.model.temporal_std is not None:
        nn.init.normal_(model.video_model.temporal_embedding, std=config.model.temporal_std)
    if config.model.time_init == "zero_proj":
        start_from_projections(model.video_model.blocks)
    if config.train.activation_checkpointing == "offload":
        raise ValueError("train.activation_checkpointing: offload is not to be had with tvts; use recompute")
    recompute = config.train.activation_checkpointing == "recompute"
    model.video_model.recompute = model.text_model.transformer.recompute = recompute
    return model
