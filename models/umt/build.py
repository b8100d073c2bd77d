"""UMT's model for each task, made from a configuration, with what `models.protocols` asks of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.models.umt import UMTConfig
from configs.schema import ObjectiveConfig, TaskConfig
from models.parts.aggregation import AggregationStep
from models.parts.bert_attention import KeysValues, Memory, Share
from models.parts.features import EncodedVideo
from models.parts.pixels import normalise_pixels
from models.umt.model import UMT


class RetrievalModel(UMT):
    """UMT as the tasks on pairs use it: texts are read and fused in one call, memories are of videos."""

    is_tied = False
    # Contrast takes the features of the batch itself; UMT has no momentum twin.
    twinned: tuple[str, ...] = ()

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch."""
        return self.vision_encoder.patch_size

    @property
    def num_blocks(self) -> int:
        """Blocks of the video encoder."""
        return len(self.vision_encoder.encoder.blocks)

    @property
    def embed_dim(self) -> int:
        """Width of the space that videos and texts share."""
        return self.vision_proj.out_features

    @property
    def similarity_scale(self) -> float:
        """What similarities are multiplied by in training: 1 / temperature."""
        return 1 / float(self.temp)

    def trace_video(self, video_BTCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> EncodedVideo:
        """Tokens, sizes and origins of uint8 videos; `steps`, an empty list, gets what each block merges."""
        encoder = self.vision_encoder
        dtype = encoder.encoder.norm.weight.dtype
        shown = normalise_pixels(video_BTCHW, encoder.pixel_mean, encoder.pixel_std, dtype)
        encoded = encoder(shown, return_origins=True, steps=steps)
        return EncodedVideo(encoded.tokens, encoded.size, encoded.origins)

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Unit vectors (..., E) of video tokens (..., D) in the shared space, each pooled alone."""
        assert self.vision_encoder.pool_norm is not None
        return F.normalize(self.vision_proj(self.vision_encoder.pool_norm(tokens)).float(), dim=-1)

    def project(self, video_tokens_VND: Tensor) -> Memory:  # type: ignore[override]  # as the tasks have it
        """What texts attend to of videos (V, N, D), made once."""
        return Memory(self.text_encoder.project(video_tokens_VND))

    def project_once(self, video_tokens: Tensor) -> Memory:
        """The same for one use."""
        return self.project(video_tokens)

    def match(  # type: ignore[override]  # as the tasks have it
        self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None
    ) -> Tensor:
        """Logits (P, 2) of texts with the videos `about` (P,), or P / V texts each in order."""
        memory = self.project(video_tokens)
        return self.match_groups([(len(ids), memory if about is None else memory.rows(about))], ids, mask)

    def match_groups(self, groups: Sequence[tuple[int, Memory]], ids: Tensor, mask: Tensor) -> Tensor:
        """The same for groups of texts one after the other: how many texts, and the memory of their videos."""
        layers = zip(*(memory.layers for _, memory in groups), strict=True)
        states = self.text_encoder.read(ids, mask)
        return self.itm_head(self.text_encoder.fuse_first(states, mask, _shares(groups, layers)))

    def embed_with(
        self, parts: Mapping[str, nn.Module], video_BTCHW: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Refused: there is no momentum twin."""
        raise ValueError("objective.momentum: this model has no momentum twin; set objective.momentum=0")

    def text_loss(self, memory: Memory, ids: Tensor, mask: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """Refused: no decoder writes captions."""
        raise ValueError("objective.losses: this model has no decoder; leave out cap")

    def compile_towers(self) -> None:
        """Compile the video encoder; a graph for each size, as graphs of symbolic sizes take many times as long."""
        self.vision_encoder.compile(fullgraph=True, dynamic=False)

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Evaluate in `dtype` from now on, with outputs equal to 1e-5; the model no longer trains."""
        self.vision_encoder.fold_for_inference(dtype)

    def freeze_unused(self, losses: tuple[str, ...]) -> None:
        """Freeze what none of vtc and vtm reaches: all that is trained has a gradient, as DDP requires."""
        reached: dict[str, tuple[str, ...]] = {
            "vtc": ("vision_encoder", "text_encoder.embeddings", "vision_proj", "text_proj", "temp"),
            "vtm": ("vision_encoder", "text_encoder", "itm_head"),
        }
        layers = [f"text_encoder.encoder.layer.{index}." for index in range(self.text_encoder.fusion_layer)]
        starts = tuple(start for loss in losses for start in reached.get(loss, ()))
        if "vtc" in losses:
            starts += tuple(layers)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(starts))


def _shares(groups: Sequence[tuple[int, Memory]], layers: Iterable[tuple[KeysValues, ...]]) -> Iterable[list[Share]]:
    for of_layer in layers:
        yield [Share(texts, projected) for (texts, _), projected in zip(groups, of_layer, strict=True)]


def build_model(config: TaskConfig, tokenizer: Any) -> RetrievalModel:
    """The configured task's model with fresh weights; the tokenizer adds nothing to it."""
    assert isinstance(config.model, UMTConfig)
    objective = config.objective
    if not isinstance(objective, ObjectiveConfig):
        raise ValueError(f"model.name: umt is trained and evaluated on pairs, not for {config.task}; take testa for it")
    if "cap" in objective.losses:
        raise ValueError("objective.losses: umt has no decoder that writes captions; leave out cap")
    if objective.momentum:
        raise ValueError("objective.momentum: umt has no momentum twin; set objective.momentum=0")
    if config.train.activation_checkpointing == "offload":
        raise ValueError("train.activation_checkpointing: offload is not to be had with umt; use recompute")

    return RetrievalModel(
        config.model,
        config.video,
        config.aggregation,
        temperature=objective.temperature,
        activation_checkpointing=config.train.activation_checkpointing,
    )
