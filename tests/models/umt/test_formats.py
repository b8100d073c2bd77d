"""Published files of every kind start models by the mechanism that all systems share."""

import pytest
import torch

from models.checkpoints.load import load_into
from models.umt.formats import FORMATS
from tests.models.umt.published import TINY, published
from tests.models.umt.test_weights import USES, model_of, tiny_config


@pytest.mark.parametrize("kind", ["stage 1", *USES])
def test_published_files_start_models(kind: str) -> None:
    tensors = published(kind, TINY)
    model = model_of(tiny_config(), "answers" if kind == "question answering" else "retrieval", TINY, image_size=8)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lines = load_into(model, tensors, "file", formats=FORMATS).lines()

    state, block = model.state_dict(), "encoder.blocks.1.attn.qkv.weight"
    stored = tensors[block if kind == "stage 1" else f"vision_encoder.{block}"]
    assert torch.equal(state[f"vision_encoder.{block}"], stored)
    if kind == "stage 1":
        assert torch.equal(state["itm_head.weight"], fresh["itm_head.weight"])
        assert any("pool_norm is not in the file" in line for line in lines)
    if kind == "pre-training":
        assert torch.equal(state["itm_head.weight"], tensors["itm_head.weight"])
        assert any("clip_teacher" in line for line in lines) and any("clip_decoder" in line for line in lines)


def test_an_answer_decoder_starts_from_pre_training() -> None:
    tensors = published("pre-training", TINY)
    model = model_of(tiny_config(), "answers", TINY, image_size=8)
    lines = load_into(model, tensors, "file", formats=FORMATS).lines()
    state, layer = model.state_dict(), "crossattention.self.key.weight"
    own = state[f"text_decoder.bert.encoder.layer.1.{layer}"]
    assert torch.equal(own, tensors[f"text_encoder.bert.encoder.layer.3.{layer}"])
    assert torch.equal(state["text_decoder.cls.predictions.bias"], tensors["text_encoder.cls.predictions.bias"])
    assert any("text_decoder is made of the later layers" in line for line in lines)


def test_what_does_not_fit_is_refused() -> None:
    model = model_of(tiny_config(), "answers", TINY, image_size=8)
    with pytest.raises(ValueError, match="text_decoder: missing as a whole"):
        load_into(model, published("retrieval", TINY), "file", formats=FORMATS)
    with pytest.raises(ValueError, match="nor one of UMT's files"):
        load_into(model, {"visual_encoder.blocks.0": torch.zeros(1)}, "file", formats=FORMATS)
    tensors = published("retrieval", TINY)
    del tensors["vision_encoder.encoder.norm.bias"]
    retrieval = model_of(tiny_config(), "retrieval", TINY, image_size=8)
    with pytest.raises(ValueError, match="vision_encoder.encoder.norm.bias: missing"):
        load_into(retrieval, tensors, "file", formats=FORMATS)
