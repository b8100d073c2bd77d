"""The twin against its formula, and the queue against a Python list."""

import pytest
import torch

from models.parts.momentum import NO_INDEX, FeatureQueue, MomentumTwin
from models.testa.model import VisionLanguageModel
from tests.models.tiny import clips, encoder, randomise, texts, vision_language


def test_the_twin_starts_equal_and_follows_in_place() -> None:
    model = vision_language()
    twin = MomentumTwin(model, momentum=0.9)
    pairs = [
        (own, trained)
        for name in VisionLanguageModel.twinned
        for own, trained in zip(getattr(twin, f"{name}_m").parameters(), getattr(model, name).parameters(), strict=True)
    ]
    assert all(torch.equal(own, trained) and own is not trained for own, trained in pairs)
    assert not any(own.requires_grad for own, _ in pairs)
    randomise(model)
    before = [own.clone() for own, _ in pairs]
    places = [own.data_ptr() for own, _ in pairs]
    trained_before = [trained.clone() for _, trained in pairs]
    twin.update(model)
    for old, (own, trained), place, fixed in zip(before, pairs, places, trained_before, strict=True):
        torch.testing.assert_close(own, 0.9 * old + 0.1 * trained)
        assert own.data_ptr() == place
        assert torch.equal(trained, fixed)


def test_the_twin_embeds_as_the_model_did() -> None:
    model, (ids, mask) = vision_language(), texts((6, 4))
    twin = MomentumTwin(model, momentum=0.9)
    with torch.no_grad():
        expected = model.encode_video(clips(2)).embedding, model.encode_text(ids, mask).embedding
        randomise(model)
    found = twin.embed(model, clips(2), ids, mask)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert not torch.allclose(model.encode_text(ids, mask).embedding, expected[1], atol=1e-2)


def test_the_twin_of_an_offloading_model_runs_its_own_weights() -> None:
    """fairscale's wrapper is a method bound to the wrapped block, which a plain copy would still be bound to."""
    built = vision_language()
    built.visual_encoder = encoder(checkpointing="offload")
    twin = MomentumTwin(built, momentum=0.9)
    (ids, mask), video = texts((6, 4)), clips(2)
    expected = twin.embed(built, video, ids, mask)[0]
    randomise(built)
    assert torch.equal(twin.embed(built, video, ids, mask)[0], expected)


def test_names_end_as_the_references() -> None:
    names = {name.split(".")[0] for name in MomentumTwin(vision_language(), 0.9).state_dict()}
    assert names == {"visual_encoder_m", "text_encoder_m", "vision_proj_m", "text_proj_m"}


def test_a_new_queue_belongs_to_no_sample() -> None:
    queue, same = FeatureQueue(6, 5, seed=3), FeatureQueue(6, 5, seed=3)
    torch.testing.assert_close(queue.video.norm(dim=1), torch.ones(5))
    assert queue.index.tolist() == [NO_INDEX] * 5
    assert torch.equal(queue.video, same.video) and torch.equal(queue.text, same.text)
    assert not torch.equal(queue.video, FeatureQueue(6, 5, seed=4).video)
    assert not torch.equal(queue.video, queue.text)


@pytest.mark.parametrize("size", [1, 2, 5, 7])
@pytest.mark.parametrize("batches", [(1, 1, 1), (3, 3, 3), (4, 2, 5, 1), (5,), (7, 7), (13, 2, 11), (6, 1)])
def test_the_queue_holds_the_last_entries_whatever_the_batch(size: int, batches: tuple[int, ...]) -> None:
    queue = FeatureQueue(4, size, seed=0)
    slots = list(zip(queue.video.tolist(), queue.text.tolist(), queue.index.tolist(), strict=True))
    pointer = 0
    for number, batch in enumerate(batches):
        video, text, index = torch.randn(batch, 4), torch.randn(batch, 4), torch.arange(batch) + 100 * number
        queue.push(video, text, index)
        for entry in zip(video.tolist(), text.tolist(), index.tolist(), strict=True):
            slots[pointer] = entry
            pointer = (pointer + 1) % size
        assert list(zip(queue.video.tolist(), queue.text.tolist(), queue.index.tolist(), strict=True)) == slots
        assert int(queue.pointer) == pointer


@pytest.mark.parametrize("broken", ["video", "text"])
def test_features_that_are_not_finite_stay_out_of_the_queue(broken: str) -> None:
    queue = FeatureQueue(4, 5, seed=0)
    before = {name: value.clone() for name, value in queue.state_dict().items() if name != "pointer"}
    features = {"video": torch.ones(3, 4), "text": torch.ones(3, 4)}
    features[broken][1, 2] = torch.nan
    queue.push(**features, index=torch.arange(3))
    assert all(torch.equal(queue.state_dict()[name], value) for name, value in before.items())
    queue.push(torch.ones(3, 4), torch.ones(3, 4), torch.arange(3))
    assert (queue.index >= 0).sum() == 3 and queue.video.isfinite().all()


def test_a_queue_of_no_entries_takes_nothing() -> None:
    queue = FeatureQueue(4, 0, seed=0)
    queue.push(torch.randn(3, 4), torch.randn(3, 4), torch.arange(3))
    assert (len(queue.index), queue.video.shape, int(queue.pointer)) == (0, (0, 4), 0)


def test_the_queue_is_part_of_the_state() -> None:
    queue, other = FeatureQueue(4, 3, seed=0), FeatureQueue(4, 3, seed=1)
    queue.push(torch.randn(2, 4), torch.randn(2, 4), torch.arange(2))
    other.load_state_dict(queue.state_dict())
    for one in (queue, other):
        one.push(torch.ones(2, 4), torch.ones(2, 4), torch.tensor([8, 9]))
    assert other.index.tolist() == [9, 1, 8]
    assert torch.equal(other.text, queue.text)
