"""The reference's names to ours and back, to the bit."""

import pytest
import torch

from models.parts.momentum import NO_INDEX, FeatureQueue
from models.testa.weights.exchange import to_native, to_reference
from models.testa.weights.sizes import model_of, task_of, video_of
from tests.models.testa.weights.published import BLIP_FILES, FILES, SMALL, Sizes, build, random, shapes_of


@pytest.mark.parametrize("kind", [*FILES, *BLIP_FILES])
def test_there_and_back_is_the_same_file(kind: str) -> None:
    tensors = build(kind, SMALL, random)
    tensors["visual_encoder.norm.weight"] = tensors["visual_encoder.norm.weight"].half()
    back = to_reference(to_native(tensors), task_of(tensors))
    assert back.keys() == tensors.keys() == shapes_of(kind, SMALL).keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name


@pytest.mark.parametrize("task", ["pretrain", "retrieval"])
def test_the_queue_is_ours_transposed(task: str) -> None:
    tensors = build(f"testa_{task}", SMALL, random)
    queue = FeatureQueue(SMALL.embed, SMALL.queue, seed=0)
    prefix = "objectives.queue."
    queue.load_state_dict({n.removeprefix(prefix): t for n, t in to_native(tensors).items() if n.startswith(prefix)})
    assert torch.equal(queue.video[3], tensors["image_queue"][:, 3])
    assert torch.equal(queue.text[3], tensors["text_queue"][:, 3])
    expected = [NO_INDEX] * 5 if task == "pretrain" else tensors["idx_queue"][0].tolist()
    assert (queue.index.tolist(), int(queue.pointer)) == (expected, 1)


def test_parts_that_no_task_has_are_refused() -> None:
    tensors = build("testa_vqa", SMALL, random) | {
        "classifier.weight": torch.zeros(1, 64),
        "cls_head.0.bias": torch.zeros(1),
    }
    with pytest.raises(ValueError, match="^holds parts that no task here has: classifier, cls_head$"):
        to_native(tensors)


def test_sizes_are_read_from_shapes() -> None:
    sizes = Sizes(width=128, depth=3, patch=8, places=26, frames=5, text_width=64, text_depth=2, intermediate=96,
                  positions=20, vocabulary=50, embed=24)  # fmt: skip
    tensors = build("testa_retrieval", sizes, random)
    model, video = model_of(tensors), video_of(tensors)
    assert (model.depth, model.width, model.heads, model.patch_size, model.mlp_ratio) == (3, 128, 2, 8, 4.0)
    assert (model.embed_dim, model.attention, model.temporal_scaling) == (24, "divided", False)
    text = model.text
    assert (text.depth, text.width, text.heads, text.intermediate) == (2, 64, 1, 96)
    assert (text.vocab_size, text.max_positions) == (50, 20)
    assert (video.num_frames, video.image_size, video.eval_sampling) == (5, 40, "uniform_floor")
    with pytest.raises(
        ValueError, match="^model.heads: cannot be told from a width of 96; describe the model with --co"
    ):
        model_of(build("testa_vqa", Sizes(width=96, depth=1, text_depth=1), random))
    with pytest.raises(ValueError, match="^holds visual_encoder: that is no model of a task$"):
        task_of({"visual_encoder.cls_token": torch.zeros(1)})
