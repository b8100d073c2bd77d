"""BLIP's files: an image ViT and text towers, under the names that TESTA and our model use too.

`model_base.pth`, `model_base_14M.pth` and `model_base_capfilt_large.pth` hold all of pre-training (encoder, towers,
heads, decoder, twins, queues); the fine-tunes for retrieval (384 pixels) hold no decoder, those for question answering
(480 pixels) no heads, twins or queues, and those for captions (384 pixels) neither these nor a text encoder.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor

from models.checkpoints.stored import Stored, part_of

QUEUES = ("image_queue", "text_queue", "idx_queue", "queue_ptr", "ptr_queue")
"""Names of the queues and their pointer: pre-training's is `queue_ptr`, retrieval's `ptr_queue` and has `idx_queue`."""
POSITION_IDS = "embeddings.position_ids"


def matches(names: Iterable[str]) -> bool:
    """Whether these are the names of one of BLIP's files, or of a file like them."""
    return any(name.startswith("visual_encoder.blocks.") for name in names)


def read(tensors: Mapping[str, Tensor]) -> Stored:
    """The weights unchanged; queues and position ids (0, 1, 2, ...) are not weights."""
    return read_named(tensors, "BLIP")


def read_named(tensors: Mapping[str, Tensor], family: str) -> Stored:
    """Like `read`, for any model with these names; `family` names its authors' project."""
    weights: dict[str, Tensor] = {}
    left: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        if name in QUEUES:
            left.setdefault("queues start fresh", []).append(name)
        elif name.endswith(POSITION_IDS):
            left.setdefault("they are counted, not learned", []).append(name)
        else:
            weights[name] = tensor
    return Stored(f"{family}, {task_of(tensors)}", weights, left)


def task_of(names: Iterable[str]) -> str:
    """What a file with these parts was trained for, in words."""
    parts = {part_of(name) for name in names}
    if "text_decoder" not in parts:
        return "fine-tuned for retrieval" if "itm_head" in parts else "of an unknown task"
    if "itm_head" in parts:
        return "pre-trained"
    return "fine-tuned for question answering" if "text_encoder" in parts else "fine-tuned for captions"
