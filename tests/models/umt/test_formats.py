"""Published files of every kind start models by the mechanism that all systems share."""

import pytest
import torch
from torch.testing import assert_close
from transformers import BertConfig, BertForMaskedLM

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


def their_bert() -> BertForMaskedLM:
    text = tiny_config().text
    return BertForMaskedLM(
        BertConfig(
            vocab_size=text.vocab_size,
            hidden_size=text.width,
            num_hidden_layers=text.depth,
            num_attention_heads=text.heads,
            intermediate_size=text.intermediate,
            max_position_embeddings=text.max_positions,
            type_vocab_size=text.token_types,
        )
    ).eval()


@torch.no_grad()
@pytest.mark.parametrize("old", [False, True], ids=["new", "gamma and beta"])
def test_the_text_tower_starts_from_berts_own_file(old: bool) -> None:
    theirs, model = their_bert(), model_of(tiny_config(), "pretraining", TINY, image_size=8).eval()
    stored = {name: tensor.clone() for name, tensor in theirs.state_dict().items() if "decoder" not in name}
    if old:
        stored = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in stored.items()
        }
    key = "text_encoder.encoder.layer.3.crossattention.self.key.weight"
    fresh = model.state_dict()[key].clone()
    assert FORMATS.start_text(model, lambda: stored, ("text_encoder",)) == []
    (line,) = FORMATS.start_text(model, lambda: stored, ())
    assert "tensors of BERT" in line and torch.equal(model.state_dict()[key], fresh)

    ids, mask = torch.tensor([[2, 7, 9, 3]]), torch.ones(1, 4, dtype=torch.int64)
    output = theirs(ids, attention_mask=mask, output_hidden_states=True)
    assert_close(model.text_encoder.read(ids, mask), output.hidden_states[tiny_config().text.fusion_layer])
    assert_close(model.mlm_head(output.hidden_states[-1]), output.logits)

    stored.pop("bert.embeddings.position_embeddings.weight")
    with pytest.raises(ValueError, match="position_embeddings.weight: missing"):
        FORMATS.start_text(model, lambda: stored, ())
