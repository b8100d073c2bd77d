"""The toy's model: towers that no other system has, behind the methods that tasks ask for.

Shapes: B batch, V videos, P texts, T frames, L patches, N tokens, S words, D width, E width of the shared space.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schema import RetrievalConfig
from models.parts.aggregation import AggregationStep, TokenAggregator, follow, merge
from models.parts.attention import Attended
from models.parts.features import EncodedVideo, TextFeatures
from tests.toy.config import ToyConfig, token_schedule

SCALE = 20.0


class ToyVideo(NamedTuple):
    """In another order than other systems have, and with something of its own."""

    embedding: Tensor
    tokens: Tensor
    size: Tensor


class ToyBlock(nn.Module):
    """A layer on each token; then the most similar tokens merge."""

    def __init__(self, width: int, reducer: Any, leaving: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)
        self.merge_tokens = TokenAggregator(reducer, "joint", leaving, after_class_token=False)

    def forward(
        self, tokens_BND: Tensor, size_BN: Tensor, origins: Tensor, steps: list[AggregationStep] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        tokens = tokens_BND + F.gelu(self.mix(tokens_BND))
        num_tokens = tokens.shape[1]
        attended = Attended(context=tokens, key=tokens.detach(), importance=None)
        plan = self.merge_tokens.plan(attended, num_tokens)
        if plan is None:
            return tokens, size_BN, origins

        merged, size = merge(tokens, size_BN, plan)
        origins = follow(origins, plan, num_tokens, 1)
        if steps is not None:
            steps.append(AggregationStep("joint", tokens.detach(), plan, origins))
        return merged, size, origins


class ToyModel(nn.Module):
    """Embeddings are means of unit vectors, so they are shorter than 1; a pair is judged by a product of means."""

    def __init__(self, config: RetrievalConfig) -> None:
        super().__init__()
        model = config.model
        assert isinstance(model, ToyConfig)
        self.patch_size, self.num_blocks, self.embed_dim = model.patch_size, model.depth, model.embed_dim
        schedule = token_schedule(model, config.video, config.aggregation)
        self.colour = nn.Linear(3, model.width)
        self.layers = nn.ModuleList(ToyBlock(model.width, config.aggregation.reducer, leaving) for leaving in schedule)
        self.words = nn.Embedding(model.text.vocab_size, model.width)
        self.video_head = nn.Linear(model.width, model.embed_dim, bias=False)
        self.text_head = nn.Linear(model.width, model.embed_dim, bias=False)
        self.judge = nn.Linear(model.width, 2)

    @property
    def similarity_scale(self) -> float:
        return SCALE

    def encode_video(self, video_BTCHW: Tensor) -> ToyVideo:
        encoded = self.trace_video(video_BTCHW)
        share = (encoded.size / encoded.size.sum(dim=1, keepdim=True)).unsqueeze(-1)
        return ToyVideo((share * self.project_tokens(encoded.tokens)).sum(dim=1), encoded.tokens, encoded.size)

    def video_tokens(self, video_BTCHW: Tensor) -> Tensor:
        return self.trace_video(video_BTCHW).tokens

    def trace_video(self, video_BTCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> EncodedVideo:
        pixels = video_BTCHW / 255 - 0.5 if video_BTCHW.dtype == torch.uint8 else video_BTCHW
        patch = self.patch_size
        colours_BTLC = reduce(pixels, "B T C (H P) (W Q) -> B T (H W) C", "mean", P=patch, Q=patch)
        tokens = rearrange(self.colour(colours_BTLC), "B T L D -> B (T L) D")

        batch, num_frames, num_patches = colours_BTLC.shape[:3]
        size = tokens.new_ones(tokens.shape[:2], dtype=torch.float32)
        cells = torch.arange(num_frames * num_patches, device=tokens.device)
        origins = cells.view(num_frames, num_patches).expand(batch, -1, -1)

        for layer in self.layers:
            if steps is not None:
                steps.append([])
            tokens, size, origins = layer(tokens, size, origins, None if steps is None else steps[-1])
        return EncodedVideo(tokens, size, origins)

    def project_tokens(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.video_head(tokens).float(), dim=-1)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        words_PSE = F.normalize(self.text_head(self.words(ids)).float(), dim=-1)
        return TextFeatures(_mean(words_PSE, mask))

    def match(self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None) -> Tensor:
        if about is None:
            about = torch.arange(len(video_tokens), device=ids.device).repeat_interleave(len(ids) // len(video_tokens))
        means_VD = video_tokens.mean(dim=1)
        return self.judge(means_VD[about] * _mean(self.words(ids), mask))

    def compile_towers(self) -> None:
        for layer in self.layers:
            layer.compile()

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """There is nothing that a fold would save, so the model is only put into evaluation."""
        self.eval()


def build_model(config: Any, tokenizer: Sequence[str]) -> ToyModel:
    if not isinstance(config, RetrievalConfig):
        raise ValueError(f"model.name: toy is for retrieval alone, not for {config.task}")
    return ToyModel(config)


def _mean(values_PSD: Tensor, mask: Tensor) -> Tensor:
    """The mean (P, D) over the words that are there."""
    weight = mask.unsqueeze(-1).to(values_PSD.dtype)
    return (values_PSD * weight).sum(dim=1) / weight.sum(dim=1)
