"""UMT's towers and whole models as vid-TLDR's cases describe them."""

from typing import Literal

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.umt import SplitTextConfig, UMTConfig
from models.umt.model import UMT
from models.umt.video_encoder import VideoEncoder
from models.umt.weights import load
from tests.parity.cases import Meta, Tensors, weights_of


def video_encoder(meta: Meta, teacher_layers: int = 0) -> VideoEncoder:
    """The encoder of a case, with fresh weights."""
    encoder = VideoEncoder(
        model_config(meta), video_config(meta), teacher_layers=teacher_layers, teacher_width=meta.get("clip_width", 1)
    )
    set_schedule(encoder, meta)
    return encoder.eval()


def model_config(meta: Meta) -> UMTConfig:
    """The sizes of a case's towers."""
    sizes = {name: meta[name] for name in ("depth", "width", "heads", "patch_size")}
    frames = meta["checkpoint_frames"]
    return UMTConfig(
        **sizes,
        pooling="frames" if meta["keep_temporal"] else "all",
        checkpoint_frames=None if frames < 0 else frames,
        embed_dim=meta.get("embed_dim", UMTConfig.embed_dim),
        text=text_config(meta["bert"]) if "bert" in meta else SplitTextConfig(),
    )


def text_config(bert: Meta) -> SplitTextConfig:
    return SplitTextConfig(
        vocab_size=bert["vocab_size"],
        depth=bert["num_hidden_layers"],
        width=bert["hidden_size"],
        heads=bert["num_attention_heads"],
        intermediate=bert["intermediate_size"],
        max_positions=bert["max_position_embeddings"],
        dropout=bert["hidden_dropout_prob"],
        token_types=bert["type_vocab_size"],
        fusion_layer=bert["fusion_layer"],
    )


def video_config(meta: Meta) -> VideoConfig:
    return VideoConfig(num_frames=meta["num_frames"], image_size=meta["image_size"])


def build_model(tensors: Tensors, meta: Meta, use: Literal["retrieval", "pretraining", "answers"]) -> UMT:
    """The whole model of a case, its weights loaded as from a published file."""
    model = UMT(model_config(meta), video_config(meta), AggregationConfig(), use=use)
    set_schedule(model.vision_encoder, meta)
    load(model, weights_of(tensors, "state_dict."), "the case")
    return model.eval()


def set_schedule(encoder: VideoEncoder, meta: Meta) -> None:
    """Give each block its number from the case; it may ask for more than there is."""
    reducer = {"none": "none", "vidtldr": "saliency"}[meta["reduction"]]
    for block, amount in zip(encoder.encoder.blocks, meta["reduce_tokens_per_block"], strict=False):
        block.merge_tokens.reducer, block.merge_tokens.r = reducer, amount


def reducing_blocks(encoder: VideoEncoder, num_tokens: int) -> list[int]:
    """The blocks in which any of that many tokens leave."""
    blocks = []
    for index, block in enumerate(encoder.encoder.blocks):
        leaving = block.merge_tokens.num_leaving(num_tokens) if block.merge_tokens.reducer != "none" else 0
        num_tokens -= leaving
        if leaving:
            blocks.append(index)
    return blocks
