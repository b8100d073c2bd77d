"""Fresh weights of a model that is trained from nothing."""

from dataclasses import replace
from typing import Literal

import pytest
import torch

from configs.schema import AggregationConfig, TestaConfig, TextConfig, VideoConfig
from models.testa.model import VisionLanguageModel

TEXT = TextConfig(vocab_size=50, depth=2, width=32, heads=2, intermediate=64, max_positions=16)
MODEL = TestaConfig(depth=2, width=32, heads=2, patch_size=8, embed_dim=16, text=TEXT)


def build(init: Literal["vit", "scratch"], decoder: Literal["none", "tied"] = "none") -> VisionLanguageModel:
    torch.manual_seed(0)
    return VisionLanguageModel(
        replace(MODEL, init=init),
        VideoConfig(num_frames=4, image_size=16),
        AggregationConfig(),
        enc_token_id=3,
        dec_token_id=2,
        sep_token_id=1,
        decoder=decoder,
    ).eval()


@pytest.mark.parametrize(("init", "apart"), [("vit", False), ("scratch", True)])
def test_from_scratch_time_matters_and_layers_keep_their_scale(init: Literal["vit", "scratch"], apart: bool) -> None:
    model = build(init)
    video = torch.randn(1, 4, 3, 16, 16)
    with torch.no_grad():
        forwards, backwards = (model.encode_video(clip).embedding for clip in (video, video.flip(1)))
    assert ((forwards - backwards).norm() > 1e-3) == apart
    weights = [model.visual_encoder.blocks[0].attn.qkv, model.text_encoder.encoder.layer[0].intermediate.dense]
    for layer in weights:
        expected = (2 / (layer.in_features + layer.out_features)) ** 0.5 if init == "scratch" else 0.02
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)


def test_words_and_positions_weigh_the_same_and_padding_stays_zero() -> None:
    model = build("scratch", decoder="tied")
    embeddings = model.text_encoder.embeddings
    for embedding in (embeddings.word_embeddings, embeddings.position_embeddings):
        assert embedding.weight.std().item() == pytest.approx(0.5, rel=0.1)
    assert embeddings.word_embeddings.weight[0].abs().max() == 0
    assert model.text_decoder is not None
    head = model.text_decoder.cls["predictions"].decoder
    assert head.weight is embeddings.word_embeddings.weight
