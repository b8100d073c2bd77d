"""Starting from a file: what is taken, made, left and refused. The published files' names are in `published.py`."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from configs.schema import TextConfig
from models.checkpoints.load import LoadReport
from models.parts.momentum import FeatureQueue, MomentumTwin
from models.testa.model import VisionLanguageModel
from tests.models.testa.weights.loading import load_into
from tests.models.testa.weights.published import BLIP_FILES, FILES, SMALL, Sizes, build, random
from tests.models.tiny import DEPTH, FRAMES, TEXT, VIDEO, clips, randomise, texts, vision_language

PARTS = {
    "pretrain": {"decoder": "tied"},
    "retrieval": {},
    "vqa": {"heads": False, "decoder": "separate", "decoder_context": "question"},
    "caption": {"heads": False, "text_encoder": False, "decoder": "separate"},
}
# The tiny model in the width of the small files.
WIDE = {"text": TextConfig(vocab_size=40, depth=2, width=64, heads=2, intermediate=48, max_positions=16, dropout=0.0)}


def stored(model: VisionLanguageModel, twin: MomentumTwin | None = None) -> dict[str, Tensor]:
    """What a task's checkpoint holds of a model, with twin and queue beside it."""
    tensors = {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    if twin is not None:
        tensors |= {f"objectives.twin.{name}": tensor.clone() for name, tensor in twin.state_dict().items()}
        queue = FeatureQueue(16, 3, seed=0)
        tensors |= {f"objectives.queue.{name}": tensor for name, tensor in queue.state_dict().items()}
    return tensors


def wide(task: str, seed: int = 1, attention: str = "divided", scaling: bool = False) -> VisionLanguageModel:
    """A task's model that the small published files fit."""
    built = vision_language(**PARTS[task], **WIDE, width=64, attention=attention, temporal_scaling=scaling, seed=seed)
    return built


def state(model: VisionLanguageModel, prefix: str = "") -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(prefix)}


@torch.no_grad()
@pytest.mark.parametrize("task", PARTS)
def test_the_same_model_comes_back(task: str) -> None:
    source, model = vision_language(**PARTS[task]), vision_language(**PARTS[task], seed=1)
    report = load_into(model, stored(source), "here")
    assert (report.notes, report.left) == ([], {})
    assert sum(report.taken.values()) == len(source.state_dict())
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model.video_tokens(clips(2)), source.video_tokens(clips(2)))


def test_our_twin_comes_back_and_the_queue_starts_fresh() -> None:
    source, model = vision_language(), vision_language(seed=1)
    kept, twin = MomentumTwin(source, 0.9), MomentumTwin(model, 0.9)
    randomise(kept)
    report = load_into(model, stored(source, kept), "here", twin=twin)
    assert all(torch.equal(tensor, kept.state_dict()[name]) for name, tensor in twin.state_dict().items())
    assert not torch.equal(twin.text_proj_m.weight, model.text_proj.weight)
    assert report.left.keys() == {"queues start fresh"}
    assert report.taken["visual_encoder_m"] == report.taken["visual_encoder"]


@torch.no_grad()
def test_a_twin_that_the_file_has_not_is_a_copy_of_what_was_loaded() -> None:
    source, model = vision_language(), vision_language(seed=1)
    twin = MomentumTwin(model, 0.9)
    report = load_into(model, stored(source), "here", twin=twin)
    ids, mask = texts((6, 4))
    assert torch.equal(twin.embed(model, clips(2), ids, mask)[0], source.encode_video(clips(2)).embedding)
    assert twin.text_proj_m.weight is not model.text_proj.weight
    assert report.notes == ["the momentum twin is a copy of the model"]


@pytest.mark.parametrize("kind", [*FILES, *BLIP_FILES])
@pytest.mark.parametrize("task", PARTS)
def test_every_weight_of_a_published_file_arrives_where_its_name_says(task: str, kind: str) -> None:
    tensors, model = build(kind, SMALL, random), wide(task)
    twin = MomentumTwin(model, 0.9) if task in ("pretrain", "retrieval") else None
    before = state(model)
    if any(name.split(".")[0] not in {other.split(".")[0] for other in tensors} for name in before):
        with pytest.raises(ValueError, match=r"missing as a whole \(.*\); start from a pre-trained file"):
            load_into(model, tensors, kind, twin=twin)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        return
    report = load_into(model, tensors, kind, twin=twin)
    loaded = state(model) | (twin.state_dict() if twin is not None else {})
    for name, tensor in loaded.items():
        spatial = name.replace("temporal_attn", "attn").replace("temporal_norm1", "norm1")
        if name in tensors:
            assert torch.equal(tensor, tensors[name]), name
        elif "temporal_fc" in name or "time_embed" in name:
            assert kind.startswith("blip") and tensor.abs().max() == 0, name
        else:
            assert kind.startswith("blip") and torch.equal(tensor, tensors[spatial]), name
    left = [name for names in report.left.values() for name in names]
    assert sum(report.taken.values()) + len(left) == len(tensors)
    assert not any("position_ids" in name for name in loaded)


def test_an_image_model_stays_one_frame_by_frame() -> None:
    """Also where fresh weights would have an effect in time, and for the twin."""
    tensors = build("blip_pretrain", SMALL, random)
    spatial, divided = wide("retrieval", attention="space"), wide("retrieval")
    twin = MomentumTwin(divided, 0.9)
    load_into(spatial, tensors, "blip")
    report = load_into(divided, tensors, "blip", twin=twin)
    still = clips(2, frames=1).expand(-1, FRAMES, -1, -1, -1)
    with torch.no_grad():
        frames = spatial.video_tokens(still).unflatten(1, (FRAMES, -1))[:, 0]
        found = divided.video_tokens(still)
    torch.testing.assert_close(found[:, 0], frames[:, 0])
    torch.testing.assert_close(found[:, 1:].unflatten(1, (FRAMES, -1)), frames[:, None, 1:].expand(-1, FRAMES, -1, -1))
    assert twin.visual_encoder_m.time_embed.abs().max() == 0
    assert not torch.equal(twin.visual_encoder_m.cls_token, divided.visual_encoder.cls_token)
    assert report.notes[:2] == [
        "visual_encoder: temporal attention and its norm are copies of the spatial ones, temporal_fc is zero",
        "visual_encoder: time_embed is zero",
    ]


@pytest.mark.parametrize(("attention", "left"), [("joint", 16), ("space", 17)])
def test_attention_that_is_not_divided_leaves_what_belongs_to_time(attention: str, left: int) -> None:
    tensors, model = build("testa_vqa", SMALL, random), wide("vqa", attention=attention)
    report = load_into(model, tensors, "testa")
    names = [name for names in report.left.values() for name in names if "visual_encoder" in name]
    assert len(names) == left and all("temporal_" in name or "time_embed" in name for name in names)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


def test_temporal_scaling_is_kept_where_there_is_one_and_named_where_it_is_dropped() -> None:
    tensors = build("testa_pretrain", SMALL, random)
    kept, dropped = wide("retrieval", scaling=True), wide("retrieval")
    load_into(kept, tensors, "testa")
    name = "visual_encoder.blocks.1.temporal_scaling"
    assert torch.equal(kept.state_dict()[name], tensors[name])
    lines = load_into(dropped, tensors, "testa").lines()
    assert (
        "weights not taken: visual_encoder.blocks.*.temporal_scaling (2): model.temporal_scaling is off, "
        in "\n".join(lines)
    )
    del tensors["visual_encoder.blocks.0.temporal_scaling"]
    with pytest.raises(ValueError, match=r"blocks.0.temporal_scaling: missing"):
        load_into(kept, tensors, "testa")
    without = load_into(kept, build("testa_retrieval", SMALL, random), "testa")
    assert kept.state_dict()[name].abs().max() == 0
    assert "visual_encoder: temporal_scaling is zero, a factor of 1" in without.notes


def test_a_tied_pair_takes_the_decoders_values_and_says_where_the_file_had_others() -> None:
    tensors, model = build("testa_pretrain", SMALL, random), wide("pretrain")
    assert not any("tied" in note for note in load_into(model, tensors, "testa").notes)
    encoders = "text_encoder.encoder.layer.1.output.dense.weight"
    decoders = "text_decoder.bert.encoder.layer.1.output.dense.weight"
    tensors[encoders] = torch.randn_like(tensors[encoders])
    report = load_into(model, tensors, "testa")
    for name in (encoders, decoders):
        assert torch.equal(model.state_dict()[name], tensors[decoders])
    assert [note for note in report.notes if "tied" in note] == [
        "tied to the decoder's here, and other in the file; the decoder's are taken: "
        "text_encoder.encoder.layer.*.output.dense.weight"
    ]
    separate = wide("vqa")
    load_into(separate, tensors, "testa")
    assert torch.equal(separate.state_dict()[encoders], tensors[encoders])


def test_the_report_names_everything_once() -> None:
    model = wide("retrieval")
    lines = load_into(
        model, build("testa_pretrain", SMALL, random), "pretrained.pth", twin=MomentumTwin(model, 0.9)
    ).lines()
    assert lines[0] == (
        "weights from pretrained.pth (TESTA, pre-trained): temp (1), visual_encoder (47), text_encoder (56), "
        "vision_proj (2), text_proj (2), itm_head (2), visual_encoder_m (47), text_encoder_m (56), vision_proj_m (2), "
        "text_proj_m (2)"
    )
    assert lines[1:3] == [
        "weights not taken: text_encoder.embeddings.position_ids, text_decoder.bert.embeddings.position_ids, "
        "text_encoder_m.embeddings.position_ids: they are counted, not learned",
        "weights not taken: image_queue, text_queue, queue_ptr: queues start fresh",
    ]
    assert lines[-1] == "weights not taken: text_decoder (63): this task has no such part"
    assert LoadReport("a", "b", {}, ["x"], {}).lines() == ["weights from a (b): ", "weights: x"]


def test_what_is_wrong_within_a_part_is_listed_and_nothing_loaded() -> None:
    model, tensors = vision_language(seed=1), stored(vision_language())
    before = state(model)
    del tensors["model.itm_head.bias"]
    tensors["model.text_proj.weight"] = torch.zeros(16, 7)
    tensors["model.visual_encoder.pos_embed"] = torch.zeros(1, 17, 8)
    tensors["model.visual_encoder.extra"] = torch.zeros(1)
    with pytest.raises(ValueError) as caught:
        load_into(model, tensors, "folder")
    lines = str(caught.value).splitlines()
    assert lines[0] == "folder: is of another model than `model` describes:"
    assert [line.strip() for line in lines[1:]] == [
        "visual_encoder.pos_embed: has shape (1, 17, 8), the model's is (1, 17, 32)",
        "visual_encoder.extra: unexpected",
        "text_proj.weight: has shape (16, 7), the model's is (16, 32)",
        "itm_head.bias: missing",
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_twin_is_whole_or_absent() -> None:
    model = vision_language()
    tensors = stored(model, MomentumTwin(model, 0.9))
    del tensors["objectives.twin.text_proj_m.bias"]
    with pytest.raises(ValueError, match=r"text_proj_m.bias: missing"):
        load_into(model, tensors, "here", twin=MomentumTwin(model, 0.9))
    load_into(model, tensors, "here")  # without a twin it is no matter


def test_a_long_list_is_cut_with_its_length() -> None:
    tensors = {name: tensor for name, tensor in stored(vision_language()).items() if "text_encoder.encoder" not in name}
    missing = len([name for name in vision_language().state_dict() if name.startswith("text_encoder.encoder")])
    with pytest.raises(ValueError, match=rf"and {missing - 20} more$") as caught:
        load_into(vision_language(), tensors, "here")
    assert len(str(caught.value).splitlines()) == 22


def test_a_deeper_file_is_not_cut_short() -> None:
    with pytest.raises(ValueError, match=rf"visual_encoder.blocks.{DEPTH}.attn.proj.bias: unexpected"):
        load_into(wide("vqa"), build("testa_vqa", replace(SMALL, depth=DEPTH + 1), random), "here")


@pytest.mark.parametrize(
    ("found", "words"),
    [(38, "take a file that was saved after [DEC] and [ENC] were added"), (44, "take the tokenizer it was made with")],
)
def test_another_vocabulary_comes_with_a_remedy(found: int, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_into(wide("retrieval"), build("blip_retrieval", replace(SMALL, vocabulary=found), random), "bert")
    name = "text_encoder.embeddings.word_embeddings.weight"
    assert str(caught.value).splitlines()[1:] == [
        f"  {name}: has shape ({found}, 64), the model's is (40, 64); {words}"
    ]


def test_a_missing_part_says_which_file_has_it() -> None:
    with pytest.raises(ValueError) as caught:
        load_into(wide("vqa"), build("testa_retrieval", SMALL, random), "didemo.pth")
    assert str(caught.value).splitlines() == [
        "didemo.pth: is of another model than `model` describes:",
        "  text_decoder: missing as a whole (TESTA, fine-tuned for retrieval); start from a pre-trained file (TESTA's, "
        "or BLIP's model_base.pth, model_base_14M.pth, model_base_capfilt_large.pth), or one fine-tuned for question "
        "answering or captions",
    ]


def test_a_file_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="^other: is no checkpoint of this project, TESTA, BLIP or a ViT of timm"):
        load_into(vision_language(), {"encoder.weight": torch.zeros(1)}, "other")


def test_other_frames_and_sizes_of_a_text_tower_are_told_apart() -> None:
    sizes: Sizes = replace(SMALL, positions=12, frames=4)
    with pytest.raises(ValueError) as caught:
        load_into(wide("vqa"), build("testa_vqa", sizes, random), "here")
    lines = str(caught.value).splitlines()[1:]
    assert [line.strip() for line in lines] == [
        f"{tower}.embeddings.position_embeddings.weight: has shape (12, 64), the model's is (16, 64)"
        for tower in ("text_encoder", "text_decoder.bert")
    ]
    assert (VIDEO.num_frames, TEXT.max_positions) == (8, 16)
