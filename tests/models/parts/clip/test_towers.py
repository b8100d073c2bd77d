"""CLIP's towers equal transformers' on copied weights."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from models.parts.clip.image_tower import ImageTower
from models.parts.clip.sizes import PUBLISHED, Activation, ImageTowerSizes
from models.parts.clip.teacher import draw_visible, teach, visible_features, visible_tokens
from models.parts.clip.text_tower import TextTower
from tests.models.parts.clip.copies import IMAGE_SIZES, TEXT_SIZES, our_towers, text_ids, their_clip


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_towers_equal_transformers(activation: Activation) -> None:
    theirs = their_clip(activation)
    image, text = our_towers(theirs, activation)
    pixels, ids = torch.randn(3, 3, 16, 16), text_ids()

    features = image(pixels)
    their_vision = theirs.vision_model(pixels)
    assert_close(features.tokens[:, 0], their_vision.pooler_output, atol=1e-5, rtol=0)
    assert_close(features.embedding, theirs.visual_projection(their_vision.pooler_output), atol=1e-5, rtol=0)
    patches = theirs.vision_model.post_layernorm(their_vision.last_hidden_state[:, 1:])
    assert_close(features.tokens[:, 1:], patches, atol=1e-5, rtol=0)

    encoded = text(ids)
    their_text = theirs.text_model(ids)
    assert_close(encoded.states, their_text.last_hidden_state, atol=1e-5, rtol=0)
    assert_close(encoded.embedding, theirs.text_projection(their_text.pooler_output), atol=1e-5, rtol=0)


def test_padding_and_its_length_change_no_embedding() -> None:
    torch.manual_seed(0)
    tower, ids = TextTower(TEXT_SIZES).eval(), text_ids()[[0, 2, 3]]
    padded_with_end = ids.masked_fill(ids == 0, 49)
    assert_close(tower(ids[:, :5]).embedding, tower(ids).embedding, atol=1e-5, rtol=0)
    assert_close(tower(padded_with_end).embedding, tower(ids).embedding, atol=1e-5, rtol=0)


def test_texts_longer_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match="13 tokens.*at most 12"):
        TextTower(TEXT_SIZES)(torch.zeros(1, 13, dtype=torch.int64))


def test_frozen_blocks_keep_their_weights() -> None:
    tower = TextTower(TEXT_SIZES)
    tower.freeze_first_blocks(1)
    tower(text_ids()).embedding.sum().backward()
    untrained = {name for name, parameter in tower.named_parameters() if parameter.grad is None}
    assert untrained == {name for name in tower.state_dict() if name.startswith("transformer.resblocks.0.")}
    with pytest.raises(ValueError, match="cannot freeze 3"):
        tower.freeze_first_blocks(3)


def test_recomputing_changes_no_gradient() -> None:
    torch.manual_seed(0)
    tower, pixels, gradients = ImageTower(IMAGE_SIZES), torch.randn(2, 3, 16, 16), []
    for recompute in (False, True):
        tower.transformer.recompute = recompute
        tower.zero_grad()
        tower(pixels).embedding.square().sum().backward()
        gradients.append(tower.conv1.weight.grad)
    assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_images_of_another_size_resize_the_positions() -> None:
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 8, 32)
    for resize in ("nearest", "bicubic"):
        tower = ImageTower(IMAGE_SIZES, resize).eval()
        places = tower.positional_embedding[1:].T.reshape(1, -1, 4, 4)
        extra = {} if resize == "nearest" else {"align_corners": False}
        resized = F.interpolate(places, (2, 8), mode=resize, **extra).flatten(2).transpose(1, 2)
        patches = tower.conv1(pixels).flatten(2).transpose(1, 2)
        assert_close(tower.embed(pixels)[:, 1:], tower.ln_pre(patches + resized), atol=1e-5, rtol=0)
        assert tower(pixels).embedding.isfinite().all()
    with pytest.raises(ValueError, match="10 x 16 pixels cannot be cut into patches of 4"):
        tower(torch.randn(1, 3, 10, 16))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_towers_have_their_published_sizes(name: str) -> None:
    image_sizes, text_sizes = PUBLISHED[name]
    with torch.device("meta"):
        image, text = ImageTower(image_sizes), TextTower(text_sizes)
    # In millions; from the models' cards.
    counts = {"ViT-B/32": (87.8, 63.4), "ViT-B/16": (86.2, 63.4), "ViT-L/14": (304.0, 123.7)}
    counts |= {"ViT-L/14@336px": (304.3, 123.7), "ViT-H/14": (632.1, 354.0)}
    found = tuple(round(sum(p.numel() for p in tower.parameters()) / 1e6, 1) for tower in (image, text))
    assert found == counts[name]


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="patches of 5"):
        ImageTowerSizes(24, 1, 3, 5, 16, 8)
    with pytest.raises(ValueError, match="25 cannot be split into 3 heads"):
        ImageTowerSizes(25, 1, 3, 4, 16, 8)


@torch.no_grad()
def test_teacher_equals_transformers() -> None:
    theirs = their_clip("quick_gelu")
    theirs.set_attn_implementation("eager")
    image, _ = our_towers(theirs, "quick_gelu")
    video = torch.randn(2, 3, 3, 16, 16)
    teaching = teach(image, video, num_blocks=2)

    output = theirs.vision_model(video.flatten(0, 1), output_hidden_states=True, output_attentions=True)
    for block, states in enumerate(output.hidden_states[-2:]):
        projected = theirs.visual_projection(theirs.vision_model.post_layernorm(states[:, 1:]))
        expected = (projected / projected.norm(dim=-1, keepdim=True)).unflatten(0, (2, 3))
        assert_close(teaching.features[block], expected, atol=1e-5, rtol=0)
    attention = output.attentions[-1].mean(dim=1)[:, 0, 1:].unflatten(0, (2, 3))
    assert_close(teaching.attention, attention, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="no last 4"):
        teach(image, video, num_blocks=4)


def test_mask_keeps_the_same_number_in_every_frame_and_prefers_attended_patches() -> None:
    attention = torch.rand(50, 4, 16) + 0.01
    attention[..., 5] = 30
    attention[..., 6] = 0
    hidden = draw_visible(attention, 0.7, torch.rand(50, 4, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.equal((~hidden).sum(dim=-1), torch.full((50, 4), 16 - int(16 * 0.7)))
    assert not hidden[..., 5].any() and hidden[..., 6].all()
    assert not torch.equal(hidden[:, 0], hidden[:, 1])

    one_hot = torch.zeros(1, 1, 16)
    one_hot[..., 3] = 1
    assert int((~draw_visible(one_hot, 0.5, torch.rand(1, 1, 16))).sum()) == 8
    with pytest.raises(ValueError, match="mask_ratio 1.0"):
        draw_visible(attention, 1.0, torch.rand(50, 4, 16))


def test_visible_features_are_those_the_mask_leaves() -> None:
    features, hidden = torch.randn(3, 2, 4, 6, 5), torch.zeros(2, 4, 6, dtype=torch.bool)
    for clip in range(2):
        for frame in range(4):
            hidden[clip, frame, torch.randperm(6)[:4]] = True
    expected = torch.stack([features[:, clip][:, ~hidden[clip]] for clip in range(2)], dim=1)
    assert torch.equal(visible_features(features, hidden), expected)
    every = features.flatten(2, 3)
    kept = torch.stack([every[:, clip][:, visible_tokens(hidden)[clip]] for clip in range(2)], dim=1)
    assert torch.equal(kept, expected)


def test_patches_are_drawn_in_proportion_to_attention() -> None:
    attention = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(20000, 1, 4)
    noise = torch.rand(20000, 1, 4, generator=torch.Generator().manual_seed(0))
    visible = ~draw_visible(attention, 0.75, noise)
    assert_close(visible.float().mean(dim=0)[0], attention[0, 0], atol=0.015, rtol=0)
