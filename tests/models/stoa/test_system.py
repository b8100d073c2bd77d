"""STOA-VLP as a system: its configuration builds the published sizes, and its cost."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from configs.aggregation import AggregationConfig
from configs.load import from_dict, load
from configs.model import VideoConfig
from configs.models.stoa import StoaConfig
from configs.schema import PretrainConfig
from engine.bert_adam import BertAdam
from engine.optim import build_optimizer
from models.protocols import DualEncoder
from models.stoa.sizes import StoaSizes, sizes_of
from models.stoa.task_model import TaskModel
from models.stoa.weights import published_name
from models.systems import count, piece
from tests.models.stoa.tiny import SIZES, frames, objects, randomise, texts

ROOT = Path(__file__).resolve().parents[3]


def section(**sections: Any) -> PretrainConfig:
    settings: dict[str, Any] = {
        "data": {"root": "/data", "manifest": "a.jsonl", "objects": "/data/a.objects"},
        "optim": {"lr": 1e-5},
        "train": {"batch_size": 2, "max_epochs": 2},
        "objective": {"name": "fusion", "losses": ["vtc", "vtm", "mlm", "plm"]},
        "model": {"name": "stoa"},
        "video": {"num_frames": 12},
    }
    settings = {**settings, **sections}
    if settings["model"].get("objects") != "none":
        settings["data"] = {**settings["data"], "objects": "a.objects"}
    return from_dict(PretrainConfig, settings, "a test")


def test_a_configuration_builds_the_published_model() -> None:
    with torch.device("meta"):
        model = piece("stoa", "build")(section(), None)
    assert model.sizes == StoaSizes()
    shapes = {published_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["clip.visual.transformer.object_encoder.box_categories"] == (12, 10, 768)
    assert shapes["clip.fusion_positional_embedding"] == (210, 512)
    assert shapes["clip.object_act_fusion.transformer.resblocks.1.mlp.c_fc.weight"] == (3072, 768)


@pytest.mark.parametrize("kind", ["none", "fusion", "attention"])
@pytest.mark.parametrize("actions", [True, False])
def test_every_combination_of_branches_builds_from_settings_and_counts_its_cost(kind: str, actions: bool) -> None:
    data = {"root": "/data", "manifest": "a.jsonl", **({} if kind == "none" else {"objects": "/data/a.objects"})}
    config = section(model={"name": "stoa", "objects": kind, "actions": actions}, data=data)
    with torch.device("meta"):
        model = piece("stoa", "build")(config, None)
    assert hasattr(model, "object_act_fusion") == actions and hasattr(model, "object_fusion") == (kind == "fusion")
    found = count(config.model, config.video, AggregationConfig())
    assert found.tokens == 12 + 20 * (kind == "fusion") + 4 * actions and found.gmacs > 200


def test_the_small_configuration_builds() -> None:
    config = load(PretrainConfig, ROOT / "configs" / "debug" / "stoa_pretrain_stories.yaml", [])
    with torch.device("meta"):
        model = piece("stoa", "build")(config, None)
    assert isinstance(config.model, StoaConfig) and model.sizes == sizes_of(config.model, config.video)


def test_from_nothing_words_outweigh_what_blocks_add_to_them() -> None:
    small = {"depth": 2, "width": 48, "heads": 2, "embed_dim": 32, "fusion_heads": 2, "fusion_depth": 1}
    text = {"depth": 2, "width": 32, "heads": 2, "vocab_size": 600}
    shares = {}
    for init in ("clip", "scratch"):
        torch.manual_seed(0)
        config = section(model={"name": "stoa", "init": init, "text": text, **small})
        model = piece("stoa", "build")(config, None)
        # The same words at one place of different texts: how far are states alike because of the word there?
        ids = torch.randint(1, 500, (64, 8), generator=torch.Generator().manual_seed(1))
        ids[:, 4] = ids[:32, 4].repeat(2)
        states = model.encode_text(ids, torch.ones_like(ids)).states[:, 4].detach()
        states = states - states.mean(dim=0)
        shares[init] = float(torch.nn.functional.cosine_similarity(states[:32], states[32:]).mean())
        logits = model.vocabulary_logits(torch.randn(8, 32))
        assert logits.std() < 3
    assert shares["clip"] < 0.5 < shares["scratch"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"name": "stoa", "heads": 5}}, "model.heads: 5 does not divide model.width"),
        ({"model": {"name": "stoa", "joint_depth": 13}}, "model.joint_depth: 13 is more than"),
        ({"model": {"name": "stoa", "object_layer": -13}}, "model.object_layer: -13 is beyond"),
        ({"model": {"name": "stoa", "max_words": 78}}, "model.max_words: 78 is not from 3 to"),
        ({"video": {"num_frames": 200}}, "model.fusion_positions: 210 are too few"),
        ({"aggregation": {"reducer": "tome", "tokens_per_block": 1}}, "aggregation.reducer: 'tome' does not go with"),
        ({"objective": {"name": "fusion", "losses": ["mlm"], "vtc_epochs": 1}}, "objective.vtc_epochs: has no effect"),
        (
            {"objective": {"name": "fusion", "losses": ["vtc", "mlm"], "vtc_epochs": 2}},
            "objective.vtc_epochs: 2 leaves no epoch",
        ),
        ({"objective": {"name": "fusion", "losses": ["vtc"], "vtc_epochs": 1}}, "leaves no loss afterwards"),
        ({"objective": {"name": "fusion", "losses": ["vtc"], "align_weight": 2.0}}, "align_weight: has no effect"),
        ({"objective": {"name": "fusion", "losses": ["mlm"], "end_is_candidate": False}}, "end_is_candidate: has no"),
        ({"objective": {"name": "fusion", "align_weight": 0.0}}, "align_weight: 0.0 is not above 0"),
        ({"objective": {"name": "fusion", "losses": ["mlm", "align"]}}, "scripts.tag_captions"),
        (
            {"data": {"root": "/data", "manifest": "a.jsonl", "tags": "t", "clean_captions": False, "objects": "o"}},
            "data.tags: has no effect on pretrain",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        section(**sections)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"objective": {"losses": ["vtc"], "queue_size": 0}}, "objective.name: stoa is trained on pairs by fusion"),
        ({"train": {"batch_size": 2, "max_epochs": 2, "compile": True}}, "train.compile"),
    ],
)
def test_what_the_model_cannot_do_is_refused_when_it_is_built(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        piece("stoa", "build")(section(**sections), None)


def test_tasks_encode_and_match_through_the_protocols() -> None:
    torch.manual_seed(0)
    model = TaskModel(StoaSizes(**SIZES)).eval()  # type: ignore[arg-type]
    randomise(model)
    assert isinstance(model, DualEncoder)
    extras = objects([2, 3, 0])._asdict()
    ids, mask = texts([7, 4])
    with torch.no_grad():
        encoded = model.encode_video(frames(3), extras)
        assert torch.equal(model.video_tokens(frames(3), extras), encoded.tokens)
        logits = model.match(encoded.tokens, ids, mask, torch.tensor([2, 0]))
        read = model.encode_text(ids, mask)
        expected = model.match_memory(encoded.memory.rows(torch.tensor([2, 0])), read.states, read.mask)
        assert_close(logits, expected, atol=1e-6, rtol=0)
        both = model.match(encoded.tokens[:2], *(part.repeat(2, 1) for part in (ids, mask)))
        alone = model.match(encoded.tokens[1:2], ids, mask)
        assert_close(both[2:], alone, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="these have none"):
        model.encode_video(frames(3), {})


def test_cost_grows_with_frames() -> None:
    shorter, longer = (count(StoaConfig(), VideoConfig(num_frames=num), AggregationConfig()) for num in (6, 12))
    assert shorter.tokens == 30 and shorter.gmacs < longer.gmacs


def test_pre_training_on_webvid_has_the_published_rates_and_the_new_modules_learn() -> None:
    config = load(PretrainConfig, ROOT / "configs" / "stoa" / "pretrain" / "webvid.yaml", [])
    with torch.device("meta"):
        model = piece("stoa", "build")(config, None)
        assert model.sizes == StoaSizes()
        model.freeze_unused(config.objective.losses)
        optimizer = build_optimizer(model, config.optim)
    assert isinstance(optimizer, BertAdam)
    rate, decay = {}, {}
    for group in optimizer.param_groups:
        rate |= dict.fromkeys(group["param_names"], config.optim.lr * group["lr_scale"])
        decay |= dict.fromkeys(group["param_names"], group["weight_decay"])
    for name in (
        "visual.object_encoder.box_categories",
        "object_action",
        "object_cls_embedding",
        "fusion_proj",
        "object_frame_pos_emb",
        "fusion.positional_embedding",
        "object_act_fusion.proj",
    ):
        assert rate[name] == pytest.approx(1e-5), name
    assert rate["visual.transformer.resblocks.3.mlp.c_fc.weight"] == pytest.approx(1e-8)
    assert decay["object_fusion.ln_post.weight"] == 0.2 and decay["object_fusion.ln_post.bias"] == 0
    # No loss reaches the text tower, and the towers' inputs are frozen.
    assert not any(name.startswith(("text.", "visual.conv1", "visual.ln_p", "visual.proj")) for name in rate)
