"""TVTSv2's whole model, its objectives and its files."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from models.parts.losses_sorting import (
    SortingLosses,
    contrastive_loss,
    cosine_matrix,
    own_slice,
    sorted_right,
    sorting_loss,
)
from models.tvts.groups import parameter_groups, trained_names
from models.tvts.model import Tvts
from models.tvts.sizes import TvtsSizes
from models.tvts.video_tower import IMAGENET_MEAN, IMAGENET_STD
from models.tvts.weights import from_published, matches, to_published
from tests.models.tvts.tiny import SIZES, TEXT, make_model, make_video, with_time


def make_ids(batch: int = 2, texts: int = 4) -> torch.Tensor:
    ids = torch.randint(1, 48, (batch, texts, 7), generator=torch.Generator().manual_seed(3))
    ids[..., 5] = 49
    return ids


def test_losses_by_hand() -> None:
    video, text = torch.randn(5, 8), torch.randn(5, 8) * 3
    cosine = torch.stack([F.cosine_similarity(row[None], text) for row in video])
    assert_close(cosine_matrix(video, text), cosine)
    expected = sum(-matrix.softmax(dim=1).diagonal().log().mean() for matrix in (cosine / 0.05, cosine.T / 0.05))
    assert_close(contrastive_loss(video, text), expected)

    logits = torch.randn(2, 4, 4)
    order = torch.tensor([[0, 1, 2, 3], [2, 0, 1, 3]])
    by_hand = -torch.stack([logits.log_softmax(-1)[b, k, order[b, k]] for b in range(2) for k in range(4)]).mean()
    assert_close(sorting_loss(logits, order), by_hand)
    assert_close(sorting_loss(logits), sorting_loss(logits, torch.arange(4).expand(2, -1)))
    right = F.one_hot(order, 4).float()
    assert sorted_right(right).all(dim=1).tolist() == [True, False] and sorted_right(right, order).all()


def test_own_rows_alone_carry_the_gradient_of_the_reference_gather() -> None:
    rows = torch.randn(6, 8)
    own = rows[2:4].clone().requires_grad_()
    text = torch.randn(6, 8)
    gathered = own_slice(own, rows, first_row=2)
    assert torch.equal(gathered, rows)
    contrastive_loss(gathered, text).backward()
    whole = rows.clone().requires_grad_()
    contrastive_loss(whole, text).backward()
    assert_close(own.grad, whole.grad[2:4])


def test_sorting_trains_the_video_tower_and_the_head_alone() -> None:
    model = make_model().train()
    found = model.sort(make_video(), make_ids())
    sorting_loss(found.order_logits).backward()
    reached = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {"video_model", "pred_model"}


@torch.no_grad()
def test_transcripts_in_another_order_get_their_logits_in_that_order() -> None:
    model, video, ids = make_model().eval(), make_video(), make_ids()
    order = torch.tensor([2, 0, 3, 1])
    found, shuffled = model.sort(video, ids), model.sort(video, ids[:, order])
    assert_close(shuffled.order_logits, found.order_logits[:, order], atol=1e-5, rtol=1e-5)
    assert_close(shuffled.text, found.text, atol=1e-6, rtol=1e-5)
    assert (model.sort(video.flip(1), ids).order_logits - found.order_logits).abs().max() > 1e-4


@torch.no_grad()
def test_a_single_caption_is_not_sorted() -> None:
    model, ids = make_model(sorting=False).eval(), make_ids(texts=1)
    found = model.sort(make_video(), ids)
    assert found.order_logits is None
    assert_close(found.text, model.text_model(ids[:, 0]).embedding)


@torch.no_grad()
def test_embeddings_have_length_one_and_bytes_are_normalised() -> None:
    model, ids = make_model().eval(), make_ids()[:, 0]
    pixels = torch.randint(0, 256, (2, 3, 3, 16, 16), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    normalised = (pixels / 255 - mean) / std
    features = model.encode_video(pixels)
    assert_close(features.embedding, F.normalize(model.video_model(normalised).embedding, dim=-1), atol=1e-5, rtol=0)
    assert_close(features.tokens, model.video_tokens(normalised), atol=1e-5, rtol=1e-5)
    assert_close(model.encode_text(ids).embedding, F.normalize(model.text_model(ids).embedding, dim=-1))
    # The class token in the shared space is the embedding.
    assert_close(model.project_tokens(features.tokens)[:, 0], features.embedding, atol=1e-5, rtol=0)


@pytest.mark.parametrize("raw_patches", [False, True])
@pytest.mark.parametrize("losses", [("contrastive", "sorting"), ("contrastive",), ("sorting",)])
def test_all_that_is_trained_has_a_gradient(losses: tuple[str, ...], raw_patches: bool) -> None:
    torch.manual_seed(0)
    model = Tvts(replace(SIZES, raw_patches=raw_patches), sorting=True)
    with_time(model.video_model)
    model.freeze_unused(losses)
    found = SortingLosses()(model, make_video(), make_ids())
    sum(found[name] for name in losses).backward()
    trained = set(trained_names(model))
    assert trained == {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not any("text_model.transformer.resblocks.0." in name for name in trained)


def test_kept_patches_are_drawn_without_replacement() -> None:
    draws = make_model().draw_kept(16, torch.rand(40, 16))
    assert draws.shape == (40, 8) and (draws.diff(dim=1) > 0).all()
    assert set(draws.flatten().tolist()) == set(range(16))
    torch.manual_seed(0)
    assert Tvts(replace(SIZES, mask_ratio=0.0)).draw_kept(16, torch.rand(2, 16)) is None


def test_groups_cover_what_is_trained_and_nothing_else() -> None:
    model = make_model()
    trained = trained_names(model)
    frozen = {name for name, _ in model.named_parameters()} - set(trained)
    assert frozen == {name for name in model.state_dict() if name.startswith("text_model.transformer.resblocks.0.")}
    groups = parameter_groups(trained)
    assert sorted(name for group in groups for name in group["names"]) == sorted(trained)
    rate_of = {name: group["lr"] for group in groups for name in group["names"]}
    decay_of = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert rate_of["video_model.temporal_embedding"] == rate_of["pred_model.type_embed"] == 1e-4
    assert rate_of["video_model.proj"] == rate_of["text_model.ln_final.weight"] == 1e-7
    assert decay_of["video_model.class_embedding"] == 0.05 and decay_of["pred_model.norm.weight"] == 0
    as_released = parameter_groups(trained, temporal_embedding="clip")
    (slow,) = (group for group in as_released if "video_model.temporal_embedding" in group["names"])
    assert slow["lr"] == 1e-7


def test_published_files_load_and_convert_back() -> None:
    model = make_model()
    published = to_published(model.state_dict())
    assert {"text_token_embedding.weight", "text_positional_embedding", "text_projection", "text_ln_final.bias"} <= (
        published.keys()
    )
    assert "text_model.resblocks.3.attn.in_proj_bias" in published and matches(published)
    assert not any(name.startswith("pred_model.") for name in published)

    other = Tvts(SIZES)
    stored = {f"module.{name}": tensor.half() for name, tensor in published.items()}
    assert matches(stored)
    other.load_state_dict({name: tensor.float() for name, tensor in from_published(stored).items()})
    for name, tensor in other.state_dict().items():
        assert_close(tensor, model.state_dict()[name], atol=1e-3, rtol=1e-3)
    assert from_published(published).keys() == other.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": replace(TEXT, embed_dim=12)}, "16 and 12 dimensions"),
        ({"sort_heads": 3}, "16 cannot be split into 3 heads"),
        ({"mask_ratio": 1.0}, "mask_ratio: 1.0"),
        ({"trained_text_blocks": 5}, "5 of 4 text blocks"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TvtsSizes(**{**vars(SIZES), **change})
