"""vid-TLDR's cases: UMT's encoder with and without reduction, one merge alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from configs.model import VideoConfig
from configs.schedule import num_leaving
from configs.umt import UMTConfig
from models.parts import aggregation
from models.parts.aggregation import best_match, follow, merge, plan_bipartite
from models.parts.sharpness import negative_entropy, saliency
from models.umt.video_encoder import VideoEncoder
from tests.parity.cases import Case, Compute, Meta, Tensors, outputs_to_match, weights_of


def video_encoder(meta: Meta, **arguments: int | bool) -> VideoEncoder:
    """The encoder of a case, with fresh weights."""
    sizes = {name: meta[name] for name in ("depth", "width", "heads", "patch_size")}
    checkpoint_frames = meta["checkpoint_frames"]
    config = UMTConfig(
        pooling="frames" if meta["keep_temporal"] else "all",
        checkpoint_frames=None if checkpoint_frames < 0 else checkpoint_frames,
        **sizes,
    )
    video = VideoConfig(num_frames=meta["num_frames"], image_size=meta["image_size"])
    encoder = VideoEncoder(config, video, **arguments)
    set_schedule(encoder, meta)
    return encoder.eval()


def set_schedule(encoder: VideoEncoder, meta: Meta) -> None:
    """Give each block its number from the case; it may ask for more than there is."""
    reducer = {"none": "none", "vidtldr": "saliency"}[meta["reduction"]]
    for block, amount in zip(encoder.encoder.blocks, meta["reduce_tokens_per_block"], strict=False):
        block.merge_tokens.reducer, block.merge_tokens.r = reducer, amount


@contextmanager
def saliencies() -> Iterator[list[Tensor]]:
    """The saliency (B, N) of every reducing block, in order."""
    found: list[Tensor] = []

    def noted(sharpness: Tensor) -> Tensor:
        found.append(saliency(sharpness))
        return found[-1]

    aggregation.saliency = noted
    try:
        yield found
    finally:
        aggregation.saliency = saliency


@torch.no_grad()
def check_encoder(tensors: Tensors, meta: Meta) -> Tensors:
    """Tokens and pooled vectors of a video; sizes and saliencies where it is reduced."""
    encoder = video_encoder(meta)
    encoder.load_state_dict(weights_of(tensors, "state_dict."))
    video = tensors["video"]
    with saliencies() as found:
        encoded = encoder(video)
    outputs = {"tokens": encoded.tokens, "pooled": encoder.pool(encoded.tokens, video.shape[1])}
    blocks = reducing_blocks(encoder, video.shape[1] * encoder.num_patches)
    outputs |= {f"saliency.{block}": weight.unsqueeze(-1) for block, weight in zip(blocks, found, strict=True)}
    return outputs | {"size": encoded.size.unsqueeze(-1)}


def reducing_blocks(encoder: VideoEncoder, num_tokens: int) -> list[int]:
    """The blocks in which any of that many tokens leave."""
    blocks = []
    for index, block in enumerate(encoder.encoder.blocks):
        leaving = block.merge_tokens.num_leaving(num_tokens) if block.merge_tokens.reducer != "none" else 0
        num_tokens -= leaving
        if leaving:
            blocks.append(index)
    return blocks


@torch.no_grad()
def check_merge(tensors: Tensors, meta: Meta) -> Tensors:
    """Plan and merge alone, given the attention map."""
    tokens = tensors["tokens_before"]
    batch, num_tokens, _ = tokens.shape
    size = tensors["size_before"].squeeze(-1) if "size_before" in tensors else tokens.new_ones(batch, num_tokens)
    weight = saliency(negative_entropy(tensors["attention"]))

    positions = torch.arange(num_tokens)
    score, match = best_match(tokens[:, ::2], tokens[:, 1::2])
    r = num_leaving(meta["r"], num_tokens, protected=0)
    plan = plan_bipartite(score, match, r, positions[::2], positions[1::2], "reference")
    origins = follow(positions.expand(batch, 1, -1), plan, num_tokens, 1)
    merged, merged_size = merge(tokens, size, plan._replace(weight=weight.gather(-1, plan.source)))
    return {
        "merged_tokens": merged,
        "merged_size": merged_size.unsqueeze(-1),
        "saliency": weight.unsqueeze(-1),
        "landed": origins.squeeze(1),
    }


KINDS: dict[str, Compute] = {
    "umt_encoder": check_encoder,
    "umt_merge": check_merge,
}


def expected_outputs(case: Case) -> set[str]:
    """Every tensor of a case that is neither weight nor input."""
    return outputs_to_match(case.tensors, set(case.meta["inputs"]), ("state_dict.",))
