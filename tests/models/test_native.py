"""Starting from the weights of another model of ours."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from configs.schema import AggregationConfig, ModelConfig
from models.checkpoints.native import load_model, resize_places
from models.vision_language import VisionLanguageModel
from tests.models.tiny import DEPTH, FRAMES, HEADS, IMAGE, PATCH, TEXT, VIDEO, WIDTH, clips, texts, vision_language


def stored(model: VisionLanguageModel) -> dict[str, Tensor]:
    """What a task's checkpoint holds of a model, with a twin beside it."""
    tensors = {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    return tensors | {"twin.vision_proj_m.weight": torch.randn(16, WIDTH), "queue.index": torch.zeros(3)}


@torch.no_grad()
def test_the_same_model_comes_back() -> None:
    source, model = vision_language("tied"), vision_language("tied", seed=1)
    assert load_model(model, stored(source), "here") == []
    ids, mask = texts((6, 4))
    tokens = source.encode_video(clips(2)).tokens
    assert torch.equal(model.encode_video(clips(2)).tokens, tokens)
    assert torch.equal(model.caption_loss(tokens, ids, mask), source.caption_loss(tokens, ids, mask))
    assert torch.equal(model.temp, source.temp)


@pytest.mark.parametrize("frames", [4, 12, 16])
def test_time_embeddings_go_to_the_nearest_frame(frames: int) -> None:
    source, model = vision_language(), vision_language(video=replace(VIDEO, num_frames=frames), seed=1)
    load_model(model, stored(source), "here")
    nearest = torch.arange(frames) * FRAMES // frames
    assert torch.equal(model.visual_encoder.time_embed, source.visual_encoder.time_embed[:, nearest])
    assert torch.equal(model.visual_encoder.pos_embed, source.visual_encoder.pos_embed)


@pytest.mark.parametrize("image_size", [8, 32])
def test_position_embeddings_are_resized_bicubically(image_size: int) -> None:
    source, model = vision_language(), vision_language(video=replace(VIDEO, image_size=image_size), seed=1)
    load_model(model, stored(source), "here")
    own, given = model.visual_encoder.pos_embed, source.visual_encoder.pos_embed
    assert torch.equal(own[:, 0], given[:, 0])
    side, wanted = IMAGE // PATCH, image_size // PATCH
    for channel in (0, WIDTH - 1):
        plane = given[0, 1:, channel].view(1, 1, side, side)
        expected = F.interpolate(plane, size=(wanted, wanted), mode="bicubic", align_corners=False)
        torch.testing.assert_close(own[0, 1:, channel].view(1, 1, wanted, wanted), expected)


def test_resizing_keeps_a_smooth_picture_in_its_place() -> None:
    rows = torch.linspace(0, 1, 8)
    picture = (rows[:, None] + 2 * rows).flatten()[None, :, None]
    embedding = torch.cat([torch.tensor([[[9.0]]]), picture], dim=1)
    larger = resize_places(embedding, 16 * 16)[0, 1:, 0].view(16, 16)
    assert (larger.diff(dim=0)[2:-2] > 0).all() and (larger.diff(dim=1)[2:-2] > 0).all()
    averaged = larger.view(8, 2, 8, 2).mean(dim=(1, 3))
    torch.testing.assert_close(averaged[1:-1, 1:-1], picture.view(8, 8)[1:-1, 1:-1], atol=0.02, rtol=0)


def test_what_the_model_lacks_is_left_and_named() -> None:
    source, model = vision_language("separate"), vision_language(seed=1)
    left = load_model(model, stored(source), "here")
    assert left == sorted(f"text_decoder.{name}" for name in source.text_decoder.state_dict())
    assert torch.equal(model.itm_head.weight, source.itm_head.weight)


def test_what_is_missing_or_of_another_shape_is_listed_and_nothing_loaded() -> None:
    model = vision_language(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = stored(vision_language())
    del tensors["model.itm_head.bias"]
    tensors["model.text_proj.weight"] = torch.zeros(16, 7)
    tensors["model.visual_encoder.pos_embed"] = torch.zeros(1, 17, 8)
    with pytest.raises(ValueError) as caught:
        load_model(model, tensors, "folder/model.safetensors")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("folder/model.safetensors: is of another model")
    assert sorted(line.strip() for line in lines[1:]) == [
        "itm_head.bias: missing",
        "text_proj.weight: has shape (16, 7), the model's is (16, 32)",
        "visual_encoder.pos_embed: has shape (1, 17, 8), the model's is (1, 17, 32)",
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_long_list_is_cut_with_its_length() -> None:
    deeper = VisionLanguageModel(
        ModelConfig(depth=DEPTH + 2, width=WIDTH, heads=HEADS, patch_size=PATCH, embed_dim=16, text=TEXT),
        VIDEO,
        AggregationConfig(),
        enc_token_id=1,
        dec_token_id=1,
        sep_token_id=1,
    )
    with pytest.raises(ValueError, match=r"and \d+ more$") as caught:
        load_model(deeper, stored(vision_language()), "here")
    wanted = len(deeper.visual_encoder.state_dict()) - len(vision_language().visual_encoder.state_dict())
    assert str(caught.value).endswith(f"and {wanted - 20} more")


def test_a_file_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no weights under 'model.'; is it a checkpoint of this project"):
        load_model(vision_language(), {"encoder.weight": torch.zeros(1)}, "other.safetensors")
