"""Files with the names and shapes of every published kind: loaded, converted back to the bit, or refused."""

import pytest
import torch
from torch import Tensor

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.umt import UMTConfig
from models.umt.model import UMT
from models.umt.weights import config_of, fit, kind_of, load, read, to_published
from tests.models.umt.published import BASE, KINDS, LARGE, TINY, Size, published

USES = {"pre-training": "pretraining", "retrieval": "retrieval", "question answering": "answers"}


def model_of(config: UMTConfig, use: str, size: Size, image_size: int = 224) -> UMT:
    layers = size.teacher_layers if use == "pretraining" else 0
    video = VideoConfig(num_frames=2, image_size=image_size)
    return UMT(config, video, AggregationConfig(), use=use, teacher_layers=layers, teacher_width=size.teacher_width)


def tiny_config() -> UMTConfig:
    return config_of(read(published("retrieval", TINY)).weights)


def without(tensors: dict[str, Tensor], *endings: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(endings) and "teacher" not in name}


@pytest.mark.parametrize("size", [BASE, LARGE], ids=["base", "large"])
@pytest.mark.parametrize("kind", KINDS)
def test_real_names_and_shapes_fit(kind: str, size: Size) -> None:
    """On the meta device, where neither file nor model take memory."""
    tensors = published(kind, size, device="meta")
    assert kind_of(tensors) == kind
    config = config_of(read(published("retrieval", size, device="meta")).weights)
    assert (config.width, config.depth, config.heads) == (size.width, size.depth, size.width // 64)
    assert (config.text.fusion_layer, config.text.depth, config.embed_dim) == (size.fusion, size.text_depth, size.embed)
    with torch.device("meta"):
        model = model_of(config, USES.get(kind, "retrieval"), size)

    fitted = fit(model, tensors, "file")
    assert len(fitted.weights) == len(without(tensors, "position_ids"))
    if kind != "stage 1":
        assert fitted.weights.keys() == model.state_dict().keys()


@pytest.mark.parametrize("kind", USES)
def test_loaded_and_converted_back_to_the_bit(kind: str) -> None:
    tensors = published(kind, TINY)
    model = model_of(tiny_config(), USES[kind], TINY, image_size=8)
    load(model, tensors, "file")
    converted = to_published(model.state_dict(), kind)
    expected = without(tensors, "position_ids")
    assert converted.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in converted.items())


def test_stage_1_leaves_the_rest_fresh() -> None:
    tensors, model = published("stage 1", TINY), model_of(tiny_config(), "retrieval", TINY, image_size=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    notes = load(model, tensors, "file")
    for name, tensor in model.state_dict().items():
        is_in_file = name.startswith("vision_encoder.encoder.")
        assert torch.equal(tensor, tensors[name.removeprefix("vision_encoder.")] if is_in_file else before[name])
    assert any(
        "fresh: itm_head, temp, text_encoder, text_proj, vision_encoder.pool_norm, vision_proj" in n for n in notes
    )

    assert to_published(read(tensors).weights, "stage 1").keys() == tensors.keys()


def test_an_answer_decoder_starts_from_pre_training() -> None:
    tensors, model = published("pre-training", TINY), model_of(tiny_config(), "answers", TINY, image_size=8)
    notes = load(model, tensors, "file")
    own = model.state_dict()
    bert, head = "text_encoder.bert.encoder.layer.3.crossattention.self.key.weight", "text_encoder.cls.predictions.bias"
    assert torch.equal(own["text_decoder.bert.encoder.layer.1.crossattention.self.key.weight"], tensors[bert])
    assert torch.equal(own["text_decoder.cls.predictions.bias"], tensors[head])
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(own[f"text_decoder.bert.{words}"], tensors[f"text_encoder.bert.{words}"])
    assert torch.equal(own[f"text_encoder.{words}"], tensors[f"text_encoder.bert.{words}"])
    assert any("clip_teacher.proj" in note for note in notes)
    assert any("this model has no such part" in note and "itm_head" in note for note in notes)


def test_a_retrieval_model_takes_pre_training_without_its_heads() -> None:
    model = model_of(tiny_config(), "retrieval", TINY, image_size=8)
    tensors = published("pre-training", TINY)
    notes = load(model, tensors, "file")
    assert torch.equal(model.state_dict()["itm_head.weight"], tensors["itm_head.weight"])
    assert any("mlm_head" in note and "vision_encoder.clip_decoder" in note for note in notes)


@pytest.mark.parametrize(
    ("kind", "use", "change", "message"),
    [
        ("retrieval", "answers", {}, "text_decoder.bert.embeddings.LayerNorm.bias: missing"),
        ("retrieval", "pretraining", {}, "mlm_head.bias: missing"),
        ("retrieval", "retrieval", {"itm_head.weight": None}, "itm_head.weight: missing"),
        ("retrieval", "retrieval", {"itm_head.weight": (3, 16)}, r"itm_head.weight: has shape \(3, 16\), .* \(2, 16\)"),
        ("retrieval", "retrieval", {"text_encoder.pooler.dense.bias": (16,)}, "text_encoder.pooler.dense.bias: unexp"),
        ("stage 1", "retrieval", {"encoder.blocks.3.norm1.bias": (16,)}, "encoder.blocks.3.norm1.bias: unexpected"),
        ("retrieval", "retrieval", {"vision_encoder.encoder.patch_embed.proj.weight": None}, "none of UMT's files"),
    ],
)
def test_other_files_are_refused_and_nothing_is_loaded(
    kind: str, use: str, change: dict[str, tuple[int, ...] | None], message: str
) -> None:
    tensors = published(kind, TINY)
    for name, shape in change.items():
        if shape is None:
            del tensors[name]
        else:
            tensors[name] = torch.zeros(shape)
    model = model_of(tiny_config(), use, TINY, image_size=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        load(model, tensors, "umt.pth")
    assert str(caught.value).startswith("umt.pth: ")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
