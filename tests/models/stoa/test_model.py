"""All branches run, padding and other samples change nothing, and shortcuts equal the long way."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from models.stoa.fusion import ClipMemory
from models.stoa.model import StoaModel
from models.stoa.objectives import Tags
from models.stoa.objects import ClipObjects
from models.stoa.pretraining import PretrainingObjective
from models.stoa.sizes import StoaSizes
from tests.models.stoa.tiny import SIZES, frames, objects, texts, tiny_model

COMBINATIONS = list(itertools.product(("none", "fusion", "attention"), (False, True)))


def encode(model: StoaModel, counts: list[int]) -> ClipMemory:
    given = None if model.sizes.objects == "none" else objects(counts)
    return model.encode_video(frames(len(counts)), given).memory


def row(memory: ClipMemory, index: int) -> ClipMemory:
    return memory.rows(torch.tensor([index]))


@pytest.mark.parametrize(("kind", "actions"), COMBINATIONS)
def test_every_combination_trains_all_it_builds(kind: str, actions: bool) -> None:
    model = tiny_model(objects=kind, actions=actions)
    memory = encode(model, [2, 3])
    ids, mask = texts([7, 4])
    encoded = model.encode_text(ids, mask)
    video = model.encode_video(frames(2), None if kind == "none" else objects([2, 3]))
    losses = [
        model.match_memory(memory, encoded.states, encoded.mask).sum(),
        model.answer_logits(memory, encoded.states, encoded.mask).square().sum(),
        model.similarity(encoded.embedding, video.embedding).sum(),
    ]
    torch.stack(losses).sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == set()
    assert (memory.trajectories is not None) == (kind == "fusion") and (memory.actions is not None) == actions


@torch.no_grad()
def test_objects_stand_beside_the_frames_of_the_blocks_that_are_named() -> None:
    """Other boxes change the frames from the first of these blocks on; without a box the tower is CLIP's."""
    given = objects([3])
    others = given._replace(boxes=torch.where(given.boxes >= 0, given.boxes / 2, given.boxes))
    for layer, changed in ((1, True), (3, False), (-1, True), (-3, True)):
        tower = tiny_model(objects="attention", object_layer=layer).visual
        found, other = (tower.encode_clips(frames(1), boxes) for boxes in (given, others))
        assert (not torch.equal(found.tap, other.tap)) == changed
        assert not torch.equal(found.frames, other.frames)
        plain = tiny_model(objects="none").visual
        plain.load_state_dict(
            {name: tensor for name, tensor in tower.state_dict().items() if name in plain.state_dict()}
        )
        padded = tower.encode_clips(frames(1), objects([0])).frames
        torch.testing.assert_close(padded, plain.encode_clips(frames(1), None).frames, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["fusion", "attention"])
@torch.no_grad()
def test_padding_objects_and_other_clips_change_nothing(kind: str) -> None:
    model = tiny_model(objects=kind)
    given, pixels = objects([2, 3, 0]), frames(3)
    together = model.encode_video(pixels, given).memory
    for clip in range(3):
        # Alone, with other values where boxes are padding but for the mark that they are.
        alone = ClipObjects(*(part[clip : clip + 1].clone() for part in given))
        alone.boxes[..., 1:][alone.padding] = 7.0
        memory = model.encode_video(pixels[clip : clip + 1], alone).memory
        for part, other in zip(memory, row(together, clip), strict=True):
            if part is not None:
                torch.testing.assert_close(part.float(), other.float(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_clips_without_objects_equal_a_model_without_them() -> None:
    model = tiny_model(objects="fusion")
    plain = tiny_model(objects="none")
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in plain.state_dict()})
    ids, mask = texts([7, 4])
    logits = [
        part.match_memory(memory, part.encode_text(ids, mask).states, mask)
        for part, memory in ((model, encode(model, [0, 0])), (plain, encode(plain, [0, 0])))
    ]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_pair_does_not_depend_on_its_batch_unless_in_reference_form() -> None:
    model = tiny_model()
    memory, (ids, mask) = encode(model, [2, 3, 1]), texts([7, 4, 5])
    encoded = model.encode_text(ids, mask)
    together = model.match_memory(memory, encoded.states, encoded.mask)
    # Texts shorter than the longest of the batch, cut to their own length.
    alone = [
        model.match_memory(
            row(memory, pair), encoded.states[pair : pair + 1, :length], encoded.mask[pair : pair + 1, :length]
        )
        for pair, length in enumerate([7, 4, 5])
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    reference = model.match_memory(memory, encoded.states, encoded.mask, reference_form=True)
    of_two = model.match_memory(memory.rows(torch.arange(2)), encoded.states[:2], encoded.mask[:2], reference_form=True)
    assert (reference[:2] - of_two).abs().max() > 0.01


@torch.no_grad()
def test_answers_do_not_depend_on_how_far_questions_are_padded() -> None:
    model = tiny_model()
    memory, (ids, mask) = encode(model, [2, 3]), texts([5, 4])
    longer = model.encode_text(ids, mask)
    shorter = model.encode_text(ids[:, :5], mask[:, :5])
    found = [model.answer_logits(memory, encoded.states, encoded.mask) for encoded in (longer, shorter)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)


@torch.no_grad()
def test_read_slots_equal_those_of_the_whole_sequence() -> None:
    model = tiny_model()
    memory, (ids, mask) = encode(model, [2, 3]), texts([7, 4])
    placed = model.fusion.place_text(model.encode_text(ids, mask).states, mask)
    fused = model.fusion(memory, placed, mask)
    separator, end = model.fusion.read_pair(memory, placed, mask)
    torch.testing.assert_close(separator, fused.separator, atol=1e-5, rtol=0)
    torch.testing.assert_close(end, fused.text[torch.arange(2), mask.sum(dim=1) - 1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_vocabulary_head_is_the_projected_table() -> None:
    model, hidden = tiny_model(), torch.randn(5, 8)
    table = model.fusion_proj @ model.text.token_embedding.weight.T
    torch.testing.assert_close(model.vocabulary_logits(hidden), hidden @ table + model.fusion_logit_bias)


def test_recomputed_activations_change_neither_output_nor_gradient() -> None:
    model = tiny_model(objects="attention", actions=True)
    found = []
    for recompute in (False, True):
        model.train()
        model.visual.transformer.recompute = recompute
        model.zero_grad()
        encode(model, [2, 3]).frames.square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_fewer_frames_and_larger_frames_than_trained_on_are_encoded() -> None:
    model = tiny_model(objects="none", actions=True)
    assert model.encode_video(frames(2)[:, :2]).memory.frames.shape == (2, 2, 8)
    larger = F.interpolate(frames(2).flatten(0, 1), size=24).unflatten(0, (2, 3))
    assert bool(model.encode_video(larger).embedding.isfinite().all())
    with pytest.raises(ValueError, match="4 frames"):
        model.encode_video(torch.cat([frames(2), frames(2)[:, :1]], dim=1))
    with pytest.raises(ValueError, match="scripts.prepare_objects"):
        tiny_model(objects="fusion").encode_video(frames(1))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fusion_positions: 17 .* need 18"):
        StoaSizes(**{**SIZES, "fusion_positions": 17})  # type: ignore[arg-type]
    for layer in (4, -4):
        with pytest.raises(ValueError, match="object_layer"):
            StoaSizes(**{**SIZES, "object_layer": layer})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["fusion", "attention"])
def test_autocast_trains_and_leaves_similarities_and_logits_in_float32(kind: str) -> None:
    model = tiny_model(objects=kind)
    ids, mask = texts([7, 4, 5])
    noun = torch.arange(7) % 2 == 0
    tags = Tags(noun.expand(3, -1), ~noun.expand(3, -1))
    losses = {}
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            video = model.encode_video(frames(3), objects([2, 3, 0]))
            objective = PretrainingObjective(("vtc", "vtm", "mlm", "plm", "align"))
            losses[enabled] = objective(model, video, ids, mask, tags, step=0)
        torch.stack(list(losses[enabled].values())).sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    for name, loss in losses[False].items():
        assert losses[True][name].dtype == torch.float32
        if name != "align":  # another pair may be the best by a hair
            assert losses[True][name].item() == pytest.approx(loss.item(), rel=0.1)

    texts_E, clips_E = torch.randn(4, 8), torch.randn(5, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        similarity, logits = model.similarity(texts_E, clips_E), model.match_logits(texts_E, texts_E + 1)
    with torch.no_grad():
        assert torch.equal(similarity, model.similarity(texts_E, clips_E))
        assert torch.equal(logits, model.match_logits(texts_E, texts_E + 1))
