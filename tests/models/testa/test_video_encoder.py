"""The video encoder against timm's ViT, without and with aggregation, and on inputs of other sizes."""

from copy import deepcopy
from dataclasses import replace

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.testa.video_encoder import VideoEncoder
from tests.models.tiny import (
    DEPTH,
    FRAMES,
    HEADS,
    IMAGE,
    NUM_PATCHES,
    PAIRS,
    PATCH,
    VIDEO,
    WIDTH,
    clips,
    encoder,
    randomise,
)


def copy_from_timm(built: VideoEncoder, image_model: nn.Module) -> None:
    """Put an image model's weights into an encoder, whose temporal parts are made to do nothing."""
    for name, parameter in built.named_parameters():
        if ".temporal_" in name:
            nn.init.constant_(parameter, 0.0 if "temporal_fc" in name else 0.1)
    weights = {name: tensor for name, tensor in image_model.state_dict().items() if not name.startswith("head.")}
    lacking, unexpected = built.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert all(name == "time_embed" or ".temporal_" in name for name in lacking)
    if hasattr(built, "time_embed"):
        nn.init.zeros_(built.time_embed)


@torch.no_grad()
def test_one_frame_equals_timm_at_full_size() -> None:
    with torch.device("meta"):  # neither is initialised twice: that alone would take seconds
        image_model = timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=0).eval()
        built = VideoEncoder(TestaConfig(), VideoConfig(num_frames=1)).eval()
    image_model, built = image_model.to_empty(device="cpu"), built.to_empty(device="cpu")
    randomise(image_model, std=0.03)
    copy_from_timm(built, image_model)
    image = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(built(image[:, None]).tokens, image_model.forward_features(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
@torch.no_grad()
def test_one_frame_equals_timm(attention: str) -> None:
    image_model = VisionTransformer(
        img_size=IMAGE, patch_size=PATCH, embed_dim=WIDTH, depth=3, num_heads=HEADS, num_classes=0
    ).eval()
    randomise(image_model)
    built = encoder(attention, depth=3, video=replace(VIDEO, num_frames=1))
    copy_from_timm(built, image_model)
    image = torch.randn(2, 3, IMAGE, IMAGE)
    torch.testing.assert_close(built(image[:, None]).tokens, image_model.forward_features(image), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_space_only_reads_each_frame_as_an_image() -> None:
    built, video = encoder("space"), clips(2)
    frames = built(video.flatten(0, 1)[:, None]).tokens
    torch.testing.assert_close(built(video).tokens, frames.view(2, -1, WIDTH), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_new_divided_encoder_does_not_look_across_frames() -> None:
    model = TestaConfig(depth=1, width=WIDTH, heads=HEADS, patch_size=PATCH)
    built, video = VideoEncoder(model, VIDEO).eval(), clips(1)
    mixed = torch.cat([video[:, :1], clips(1, seed=1)[:, 1:]], dim=1)
    first_frames = [built(one).tokens[:, 1 : 1 + NUM_PATCHES] for one in (video, mixed)]
    torch.testing.assert_close(*first_frames)
    nn.init.normal_(built.blocks[0].temporal_fc.weight)
    first_frames = [built(one).tokens[:, 1 : 1 + NUM_PATCHES] for one in (video, mixed)]
    assert not torch.allclose(*first_frames, atol=1e-2)


@pytest.mark.parametrize("pair", [name for name in PAIRS if "none" not in name])
@torch.no_grad()
def test_no_reducer_and_nothing_to_reduce_are_equal_to_the_bit(pair: str) -> None:
    attention, aggregation = PAIRS[pair]
    amounts = {name: 0 for name in ("frames_per_block", "patches_per_block", "tokens_per_block")}
    idle, plain = encoder(attention, replace(aggregation, **amounts)), encoder(attention)
    assert torch.equal(idle(clips(2)).tokens, plain(clips(2)).tokens)
    assert not torch.equal(encoder(attention, aggregation)(clips(2)).tokens[:, 0], plain(clips(2)).tokens[:, 0])


@pytest.mark.parametrize(
    ("amounts", "frames", "patches"),
    [
        ({"frames_per_block": 1}, 6, 16),
        ({"patches_per_block": 3}, 8, 10),
        ({"frames_per_block": (0, 3), "patches_per_block": (5, 0)}, 5, 11),
        ({"keep": 0.25}, 4, 8),
        ({"keep": 1.0}, 8, 16),
    ],
)
@pytest.mark.parametrize("reducer", ["geometry", "importance", "prune"])
@torch.no_grad()
def test_schedules_leave_what_they_say(reducer: str, amounts: dict, frames: int, patches: int) -> None:
    encoded = encoder("divided", AggregationConfig(reducer=reducer, **amounts))(clips(1), return_origins=True)
    assert encoded.tokens.shape[1] == 1 + frames * patches
    if reducer != "prune":
        assert encoded.size[:, 1:].sum() == FRAMES * NUM_PATCHES
    held = encoded.origins[0]
    if "patches_per_block" not in amounts and "keep" not in amounts:  # whole frames stay, patch by patch
        assert ((held < 0).all(dim=1) | ((held - 1) % patches == torch.arange(NUM_PATCHES)).all(dim=1)).all()
    if "frames_per_block" not in amounts and "keep" not in amounts:  # each frame keeps its own
        own_frame = (held - 1) // patches == torch.arange(FRAMES)[:, None]
        assert (own_frame | (held < 0)).all()


@torch.no_grad()
def test_tokens_are_frame_by_frame_whatever_merges_first() -> None:
    """Sorted order and the same frames merging as in the reference's order give the same tokens, permuted."""
    one_block = dict(reducer="geometry", frames_per_block=2, patches_per_block=3)
    outputs = {}
    for order in ("reference", "sorted"):
        encoded = encoder("divided", AggregationConfig(order=order, **one_block), depth=1)(
            clips(1), return_origins=True
        )
        outputs[order] = encoded.tokens[0, encoded.origins.flatten()]
    torch.testing.assert_close(outputs["reference"], outputs["sorted"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (5, 16, 16), (16, 8, 24), (8, 32, 16)])
@torch.no_grad()
def test_any_number_of_frames_and_any_size(attention: str, frames: int, height: int, width: int) -> None:
    """Equals an encoder made for that size whose embeddings were resized by hand."""
    built, video = encoder(attention), clips(1, frames, height, width)
    patched = built.patch_embed.proj(video[0])  # T D H' W'
    side, grid = IMAGE // PATCH, (height // PATCH, width // PATCH)
    place = built.pos_embed[0, 1:].view(side, side, WIDTH)
    rows, columns = (torch.arange(new) * side // new for new in grid)
    tokens = patched.permute(0, 2, 3, 1) + place[rows][:, columns]
    if attention != "space":
        tokens = tokens + built.time_embed[0, torch.arange(frames) * FRAMES // frames][:, None, None]
    _, found = built._embed(video)
    torch.testing.assert_close(found[0], tokens.flatten(1, 2), atol=1e-6, rtol=1e-6)
    assert built(video).tokens.shape[1] == frames * grid[0] * grid[1] + (frames if attention == "space" else 1)


def test_a_size_that_patches_do_not_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="18 x 16 pixels cannot be cut into patches of 4"):
        encoder()(clips(1, height=18))


@pytest.mark.parametrize("pair", ["divided-geometry", "divided-prune", "divided-importance"])
@torch.no_grad()
def test_a_short_clip_caps_the_schedule(pair: str) -> None:
    built = encoder(*PAIRS[pair])
    assert built.capped(FRAMES, NUM_PATCHES) == []
    assert built.capped(4, 4) == [
        "frames to leave per block (2, 2), but 4 frames hold only (1, 1)",
        "patches to leave per block (3, 3), but 4 patches hold only (2, 1)",
    ]
    assert built(clips(2, 4, 8, 8)).tokens.shape[1] == 1 + 2 * 1
    assert built(clips(2, 1, 8, 8)).tokens.shape[1] == 1 + 1 * 1


@torch.no_grad()
def test_joint_schedule_is_capped_too() -> None:
    built = encoder(*PAIRS["joint-tome"])
    assert built.capped(2, 4) == ["tokens to leave per block (20, 20), but 8 tokens hold only (4, 2)"]
    assert built(clips(1, 2, 8, 8)).tokens.shape[1] == 1 + 2


@pytest.mark.parametrize("pair", PAIRS)
@torch.no_grad()
def test_folding_and_packing_change_nothing(pair: str) -> None:
    built, video = encoder(*PAIRS[pair]), clips(2)
    expected = built(video, return_origins=True)
    folded = built.fold_for_inference()(video, return_origins=True)
    if expected.origins is not None:
        assert torch.equal(folded.origins, expected.origins)
    torch.testing.assert_close(folded.tokens, expected.tokens, atol=1e-5, rtol=1e-5)
    assert torch.equal(built.fold_for_inference()(video).tokens, folded.tokens)  # a second time does nothing
    assert not [module for block in built.blocks for module in block.modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize("pair", PAIRS)
@torch.no_grad()
def test_without_packing_a_folded_encoder_has_a_layer_less(pair: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setattr("models.testa.blocks.can_pack", lambda weight: False)
    built, video = encoder(*PAIRS[pair]), clips(2)
    expected, parameters = built(video).tokens, sum(parameter.numel() for parameter in built.parameters())
    torch.testing.assert_close(built.fold_for_inference()(video).tokens, expected, atol=1e-5, rtol=1e-5)
    fewer = parameters - sum(parameter.numel() for parameter in built.parameters())
    assert fewer == (DEPTH * WIDTH * (WIDTH + 1) if "divided" in pair else 0)


@torch.no_grad()
def test_temporal_scaling_is_left_between_the_two_layers() -> None:
    built, video = encoder(temporal_scaling=True), clips(2)
    expected = built(video).tokens
    torch.testing.assert_close(built.fold_for_inference()(video).tokens, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_folded_in_bfloat16_and_under_autocast() -> None:
    """Packed weights keep their own precision under autocast."""
    built, video = encoder(*PAIRS["divided-none"]), clips(2)
    expected = built(video).tokens
    in_bfloat16 = deepcopy(built).bfloat16().fold_for_inference()(video.bfloat16()).tokens
    assert in_bfloat16.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = built(video).tokens
        packed = [deepcopy(built).fold_for_inference(dtype)(video).tokens for dtype in (torch.bfloat16, torch.float32)]
    for tokens in (in_bfloat16, under_autocast, *packed):
        assert (tokens.float() - expected).norm() < 0.03 * expected.norm()
    errors = [(tokens.float() - expected).norm() for tokens in (under_autocast, *packed)]
    assert errors[2] < errors[0] and errors[1] < 1.5 * errors[0]


@torch.no_grad()
def test_temporal_scaling_weighs_frames() -> None:
    built, plain, video = encoder(temporal_scaling=True), encoder(), clips(2)
    scalings = [block.temporal_scaling for block in built.blocks]
    plain.load_state_dict({name: t for name, t in built.state_dict().items() if "temporal_scaling" not in name})
    assert not torch.allclose(built(video).tokens, plain(video).tokens, atol=1e-3)
    for scaling in scalings:
        nn.init.zeros_(scaling)
    torch.testing.assert_close(built(video).tokens, plain(video).tokens)
    for scaling, block in zip(scalings, plain.blocks, strict=True):  # tanh(s) + 1 = 1.5 in every frame
        nn.init.constant_(scaling, torch.tensor(0.5).atanh())
        block.temporal_attn.proj.weight.mul_(1.5)
        block.temporal_attn.proj.bias.mul_(1.5)
    torch.testing.assert_close(built(video).tokens, plain(video).tokens, atol=1e-5, rtol=1e-5)


def test_temporal_scaling_with_merging_in_time_is_refused() -> None:
    with pytest.raises(ValueError, match="temporal_scaling"):
        encoder("divided", PAIRS["divided-geometry"][1], temporal_scaling=True)
