"""A ViT of timm in our video encoder gives timm's own features, frame by frame."""

from dataclasses import replace

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from models.parts.momentum import MomentumTwin
from tests.models.testa.weights.loading import load_into
from tests.models.tiny import DEPTH, HEADS, IMAGE, PATCH, VIDEO, WIDTH, clips, randomise, vision_language


def vit(**settings: object) -> VisionTransformer:
    sizes = {"img_size": IMAGE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    built = VisionTransformer(**{**sizes, "num_classes": 10, **settings})
    randomise(built)
    return built.eval()


@torch.no_grad()
def test_one_frame_has_timms_features_and_the_rest_stays_fresh() -> None:
    source, model = vit(), vision_language(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin = MomentumTwin(model, 0.9)
    report = load_into(model, source.state_dict(), "vit.safetensors", twin=twin)
    frame = clips(2, frames=1)
    torch.testing.assert_close(model.video_tokens(frame), source.forward_features(frame[:, 0]), atol=1e-5, rtol=1e-5)
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if "visual_encoder" not in name
    )
    assert torch.equal(twin.visual_encoder_m.pos_embed, model.visual_encoder.pos_embed)
    assert report.taken == {"visual_encoder": 30}
    assert report.left == {"classifier": ["head.weight", "head.bias"]}
    fresh = {note.split()[0] for note in report.notes if "keeps its fresh weights" in note}
    assert fresh == {"temp", "text_encoder", "vision_proj", "text_proj", "itm_head"}
    assert any("video.pixel_mean" in note for note in report.notes)


def test_another_image_size_is_resized() -> None:
    model = vision_language(video=replace(VIDEO, image_size=32))
    assert any("17 -> 65 places" in note for note in load_into(model, vit().state_dict(), "vit").notes)


def renamed(**names: str) -> dict[str, Tensor]:
    return {names.get(name, name): tensor for name, tensor in vit().state_dict().items()}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pre_norm": True}, r"has a norm before its first block, as CLIP's \(norm_pre.weight\)"),
        ({"reg_tokens": 4}, r"has register tokens \(reg_token\)"),
        ({"class_token": False, "global_pool": "avg", "fc_norm": False}, r"has no class token"),
        ({"global_pool": "avg"}, r"pools before its last norm \(fc_norm.weight\)"),
        ({"global_pool": "map"}, r"pools by attention"),
        ({"init_values": 1e-5}, r"LayerScale"),
        ({"qk_norm": True}, r"norms its queries and keys"),
        ({"no_embed_class": True}, r"pos_embed of 16 places has none for the class token"),
    ],
)
def test_other_architectures_are_refused_by_name(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^vit: this ViT .*{words}|^vit: this ViT's {words}"):
        load_into(vision_language(), vit(**settings).state_dict(), "vit")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"qkv_bias": False}, r"blocks.0.attn.qkv.bias: missing"),
        ({"embed_dim": 64}, r"blocks.0.attn.proj.bias: has shape \(64,\), the model's is \(32,\)"),
        ({"depth": DEPTH + 1}, rf"blocks.{DEPTH}.attn.proj.bias: unexpected"),
    ],
)
def test_another_size_is_listed(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)^vit: is of another model.*visual_encoder.{words}"):
        load_into(vision_language(), vit(**settings).state_dict(), "vit")
