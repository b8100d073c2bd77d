"""TVTSv2 as a system: its configuration builds the published sizes, its cost, and the files it starts from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from configs.aggregation import AggregationConfig
from configs.load import from_dict
from configs.model import VideoConfig
from configs.models.tvts import ClipTextConfig, TvtsConfig
from configs.schema import RetrievalConfig
from models.checkpoints.load import load_into
from models.parts.clip.image_tower import ImageTower
from models.parts.clip.names import to_transformers
from models.parts.clip.sizes import PUBLISHED
from models.parts.clip.text_tower import TextTower
from models.systems import count, piece
from models.tvts.build import sizes_of
from models.tvts.formats import FORMATS
from models.tvts.model import Tvts
from models.tvts.sizes import TVTS_PUBLISHED
from models.tvts.weights import to_published
from tests.models.tvts.tiny import IMAGE, SIZES, TEXT, make_model

CONFIGS = {
    "TVTSv2 B/32": TvtsConfig(patch_size=32, mask_ratio=0.0),
    "TVTSv2 B/16": TvtsConfig(),
    "TVTSv2 H/14": TvtsConfig(
        depth=32, width=1280, heads=16, patch_size=14, activation="gelu", raw_patches=True, mask_ratio=0.7,
        sort_heads=16, embed_dim=1024, text=ClipTextConfig(depth=24, width=1024, heads=16, trained_blocks=6),
    ),
}  # fmt: skip
VIDEO = VideoConfig(num_frames=12)


def section(**sections: object) -> RetrievalConfig:
    settings = {
        "data": {"root": "/data", "manifest": "a.jsonl"},
        "optim": {"lr": 1e-5},
        "train": {"batch_size": 2, "max_epochs": 1},
        "objective": {"losses": ["vtc"], "queue_size": 0, "momentum": 0.0, "alpha": 0.0},
        "evaluation": {"rerank": 0},
        "model": {"name": "tvts"},
        "video": {"num_frames": 12},
    }
    return from_dict(RetrievalConfig, {**settings, **sections}, "a test")


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_have_the_published_sizes(name: str) -> None:
    assert sizes_of(CONFIGS[name], VIDEO) == TVTS_PUBLISHED[name]


def test_a_configuration_builds_its_model() -> None:
    config = section(aggregation={"reducer": "geometry", "frames_per_block": (1,) + (0,) * 11})
    with torch.device("meta"):
        model = piece("tvts", "build")(config, None)
    assert model.sizes == TVTS_PUBLISHED["TVTSv2 B/16"] and model.pred_model is None
    assert model.video_model.schedules.frames[0] == 1
    assert model.video_model.pixel_mean == config.video.pixel_mean


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"name": "tvts", "heads": 5}}, "model.heads: 5 does not divide"),
        ({"model": {"name": "tvts", "mask_ratio": 1.0}}, "model.mask_ratio: 1.0"),
        ({"model": {"name": "tvts", "num_transcripts": 1}}, "model.num_transcripts: 1 leaves nothing to sort"),
        ({"model": {"name": "tvts", "text": {"trained_blocks": 13}}}, "model.text.trained_blocks: 13"),
        ({"model": {"name": "tvts", "patch_size": 15}}, "video.image_size: 224 is no multiple of model.patch_size 15"),
        ({"aggregation": {"reducer": "tome", "tokens_per_block": 1}}, "aggregation.reducer: 'tome' does not go with"),
        (
            {"aggregation": {"reducer": "geometry", "patches_per_block": 1, "weighted_pooling": True}},
            "aggregation.weighted_pooling: has no effect here",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(sections: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        section(**sections)


def test_what_the_model_cannot_do_is_refused_when_it_is_built() -> None:
    config = section(objective={"losses": ["vtc", "vtm"], "queue_size": 0}, evaluation={})
    with pytest.raises(ValueError, match="tvts has no head that matches"):
        piece("tvts", "build")(config, None)


def test_cost_by_hand() -> None:
    model = TvtsConfig(depth=2, width=384, heads=6, patch_size=16, embed_dim=8, sort_heads=2)
    video = VideoConfig(num_frames=3, image_size=64)
    frames, patches, width = 3, 16, 384
    tokens = 1 + frames * patches
    attention = 4 * tokens * width**2 + 2 * width * tokens  # linear layers, and the class token's own attention
    time = attention + 2 * width * frames * patches * (frames + 1)
    space = attention + 2 * width * frames * patches * (patches + 1)
    block = time + space + 8 * tokens * width**2 + 5 * 3 * tokens * width
    total = 2 * block + frames * patches * 3 * 16**2 * width + 5 * tokens * width + width * 8 + 5 * width
    found = count(model, video, AggregationConfig())
    assert found.gmacs == round(total / 1e9, 3) and found[2:5] == (3, 16, 49)
    merged = count(model, video, AggregationConfig(reducer="geometry", frames_per_block=(1, 0), patches_per_block=1))
    assert merged[2:5] == (2, 14, 29) and merged.gmacs < found.gmacs


def clip_weights() -> dict[str, Tensor]:
    image = {f"visual.{name}": tensor for name, tensor in ImageTower(IMAGE).state_dict().items()}
    return {**image, **TextTower(TEXT).state_dict(), "logit_scale": torch.ones(())}


@pytest.mark.parametrize("names", ["openai", "transformers"])
def test_models_start_from_clip(names: str) -> None:
    weights, model = clip_weights(), make_model(sorting=False)
    stored = {**to_transformers(weights), "vision_model.embeddings.position_ids": torch.arange(17)}
    report = load_into(model, weights if names == "openai" else stored, "f", formats=FORMATS)
    assert "CLIP an unpublished size" in report.kind and any("CLIP frame by frame" in note for note in report.notes)
    assert not model.video_model.temporal_embedding.any()
    assert torch.equal(model.video_model.proj, weights["visual.proj"])
    block = model.video_model.blocks[2]
    assert torch.equal(block.attn.qkv.weight, weights["visual.transformer.resblocks.2.attn.in_proj_weight"])
    assert torch.equal(model.text_model.text_projection, weights["text_projection"])


def test_attention_over_time_without_queries_and_keys_is_noted() -> None:
    """A model that was trained from the published start: of its attention over time values alone have changed."""
    source = make_model()
    for block in source.video_model.blocks:
        for tensor in (block.timeattn.qkv.weight, block.timeattn.qkv.bias):
            torch.nn.init.zeros_(tensor[: len(tensor) * 2 // 3])
    published = {f"module.{name}": tensor for name, tensor in to_published(source.state_dict()).items()}
    (note,) = load_into(Tvts(SIZES), published, "f", formats=FORMATS).notes
    assert "it averages the frames" in note

    last = next(name for name in published if name.endswith("2.timeattn.qkv.bias"))
    published[last][0] = 1e-3
    assert load_into(Tvts(SIZES), published, "f", formats=FORMATS).notes == []


def test_models_start_from_published_files_of_other_frames_and_pixels() -> None:
    source = make_model()
    published = {f"module.{name}": tensor for name, tensor in to_published(source.state_dict()).items()}
    assert load_into(Tvts(SIZES), published, "f", formats=FORMATS).notes == []

    shorter = Tvts(replace(SIZES, num_frames=2))
    (note,) = load_into(shorter, published, "f", formats=FORMATS).notes
    assert "the first 2 of 6 frames" in note
    assert torch.equal(shorter.video_model.temporal_embedding, source.video_model.temporal_embedding[:2])

    larger = Tvts(replace(SIZES, num_frames=12, image=replace(IMAGE, image_size=32)))
    notes = load_into(larger, published, "f", formats=FORMATS).notes
    assert any("from 4 x 4 to 8 x 8" in note for note in notes) and any("from 6 to 12 frames" in note for note in notes)
    # Resized when loaded or when used, the same.
    video = torch.randn(1, 12, 3, 32, 32)
    with torch.no_grad():
        assert_close(larger.eval().encode_video(video), source.eval().encode_video(video), atol=1e-5, rtol=1e-4)


def test_files_of_another_model_name_both() -> None:
    with torch.device("meta"):
        base, large = (ImageTower(PUBLISHED[name][0]) for name in ("ViT-B/16", "ViT-L/14"))
        model = Tvts(TVTS_PUBLISHED["TVTSv2 B/32"])
    for tower, name in ((base, "ViT-B/16"), (large, "ViT-L/14")):
        stored = {
            f"visual.{key}": torch.empty(tensor.shape, device="meta") for key, tensor in tower.state_dict().items()
        }
        with pytest.raises(ValueError, match=rf"^f: is of {name} .*, and `model` describes ViT-B/32"):
            load_into(model, stored, "f", formats=FORMATS)
    with pytest.raises(ValueError, match="f: is no checkpoint of this project, TVTSv2 or CLIP; it holds layer"):
        load_into(model, {"layer": torch.zeros(1)}, "f", formats=FORMATS)
    with pytest.raises(ValueError, match="f: its image tower lacks conv1.weight, positional_embedding"):
        load_into(
            model, {"token_embedding.weight": torch.zeros(1), "visual.proj": torch.zeros(1)}, "f", formats=FORMATS
        )


def test_the_tokenizer_of_the_system_is_clips(tmp_path: Path) -> None:
    module = piece("tvts", "tokenizer")
    tokenizer = module.make_tokenizer(["a dog runs"], 530)
    tokenizer.save(tmp_path / "new" / "folder")
    assert len(module.load_tokenizer(str(tmp_path / "new" / "folder"))) == len(tokenizer)
