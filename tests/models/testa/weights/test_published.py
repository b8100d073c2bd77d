"""The published files, in their full size, into every task's model."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers import BlipVisionConfig, BlipVisionModel

from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.parts.momentum import MomentumTwin
from models.testa.model import VisionLanguageModel
from models.testa.weights.sizes import model_of, task_of, video_of
from tests.models.testa.weights.loading import fit, load_into
from tests.models.testa.weights.published import (
    BLIP_FILES,
    FILES,
    FULL,
    Sizes,
    bert,
    bert_with_head,
    build,
    random,
    shapes_of,
    visual,
    without_memory,
)

PARTS = {
    "pretrain": {"decoder": "tied"},
    "retrieval": {},
    "vqa": {"heads": False, "decoder": "separate", "decoder_context": "question"},
    "caption": {"heads": False, "text_encoder": False, "decoder": "separate"},
}
HAS_TWIN = ("pretrain", "retrieval")
# Which tasks a file has all parts for.
TAKEN_BY = {
    "pretrain": ("pretrain", "retrieval", "vqa", "caption"),
    "retrieval": ("retrieval",),
    "vqa": ("vqa", "caption"),
    "caption": ("caption",),
}


def model_for(task: str, attention: str = "divided", frames: int = 32, scaling: bool = False) -> VisionLanguageModel:
    return VisionLanguageModel(
        TestaConfig(attention=attention, temporal_scaling=scaling),
        VideoConfig(num_frames=frames),
        AggregationConfig(),
        enc_token_id=30523,
        dec_token_id=30522,
        sep_token_id=102,
        **PARTS[task],
    )


def test_the_names_are_as_many_as_published() -> None:
    assert (len(visual(FULL, time=True)), len(visual(FULL, time=True, scaling=True))) == (247, 259)
    assert (len(visual(FULL, time=False)), len(bert(FULL)), len(bert_with_head(FULL))) == (150, 317, 324)
    assert len(shapes_of("testa_pretrain", FULL)) == 2 * (259 + 317 + 4) + 324 + 2 + 1 + 3
    assert len(shapes_of("testa_retrieval", FULL)) == 2 * (247 + 317 + 4) + 2 + 1 + 4
    assert len(shapes_of("blip_vqa", FULL)) == 150 + 317 + 324


@pytest.mark.parametrize(
    ("task", "attention"), [*((task, "divided") for task in PARTS), ("retrieval", "joint"), ("pretrain", "space")]
)
def test_every_file_of_full_size_fits_where_its_parts_are_enough(task: str, attention: str) -> None:
    with torch.device("meta"):
        model = model_for(task, attention)
        twin = MomentumTwin(model, 0.995) if task in HAS_TWIN else None
    # TESTA's are of 224 pixels; BLIP's fine-tunes for retrieval and captions of 384, for answers of 480.
    pixels = {"blip_retrieval": 577, "blip_vqa": 901, "blip_caption": 577}
    for kind in (*FILES, *BLIP_FILES):
        tensors = build(kind, Sizes(places=pixels.get(kind, 197)), without_memory)
        if task not in TAKEN_BY[kind.split("_")[1]]:
            with pytest.raises(ValueError, match=r"missing as a whole \(.*\); start from a pre-trained file"):
                fit(model, tensors, kind, twin=twin)
            continue
        _, report = fit(model, tensors, kind, twin=twin)
        expected = {"visual_encoder": 150 if kind.startswith("blip") else 247 if attention == "divided" else 151}
        expected["visual_encoder"] -= int(kind.startswith("testa") and attention == "space")
        expected |= {"text_encoder": 316} if task != "caption" else {}
        expected |= {"text_decoder": 323} if task in ("pretrain", "vqa", "caption") else {}
        expected |= {"vision_proj": 2, "text_proj": 2, "itm_head": 2, "temp": 1} if task in HAS_TWIN else {}
        if task in HAS_TWIN:
            twins = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
            expected |= {f"{part}_m": expected[part] for part in twins}
        assert report.taken == expected, kind
        assert any("-> 197 places, bicubic" in note for note in report.notes) == (kind in pixels)
        scaled = kind == "testa_pretrain"
        assert any("temporal_scaling" in name for names in report.left.values() for name in names) == scaled


@pytest.mark.parametrize("kind", [*FILES, *BLIP_FILES])
def test_task_and_sizes_are_told_from_the_names_and_shapes(kind: str) -> None:
    tensors = build(kind, FULL, without_memory)
    assert task_of(tensors) == kind.split("_")[1]
    attention = "space" if kind.startswith("blip") else "divided"
    assert model_of(tensors) == TestaConfig(attention=attention, temporal_scaling=kind == "testa_pretrain")
    video = video_of(tensors)
    assert (video.num_frames, video.image_size) == (8 if kind.startswith("testa") else 32, 224)
    assert video_of(build(kind, Sizes(places=577), without_memory)).image_size == 384


@pytest.fixture(scope="module")
def blip() -> Iterator[dict[str, Tensor]]:
    """`model_base.pth` with random weights, twins equal to what they are twins of."""
    torch.manual_seed(0)
    made: dict[str, Tensor] = {}

    def once(name: str, shape: tuple[int, ...]) -> Tensor:
        original = name.replace("_m.", ".", 1)
        made[name] = made[original] if original in made else random(name, shape)
        return made[name]

    yield build("blip_pretrain", FULL, once)


def reference_vision_model(tensors: dict[str, Tensor]) -> BlipVisionModel:
    """transformers' model with the weights of a file of BLIP."""
    model = BlipVisionModel(BlipVisionConfig(image_size=224, layer_norm_eps=1e-6, projection_dim=256))
    renamed = {
        "cls_token": "embeddings.class_embedding",
        "pos_embed": "embeddings.position_embedding",
        "patch_embed.proj": "embeddings.patch_embedding",
        "blocks": "encoder.layers",
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "attn.qkv": "self_attn.qkv",
        "attn.proj": "self_attn.projection",
    }
    state = {}
    for name, tensor in tensors.items():
        if name.startswith("visual_encoder."):
            name = name.removeprefix("visual_encoder.")
            name = f"post_layernorm{name.removeprefix('norm')}" if name.startswith("norm.") else name
            for old, new in renamed.items():
                name = name.replace(old, new)
            state[name] = tensor
    model.load_state_dict(state)
    return model.eval()


@pytest.fixture(scope="module")
def features(blip: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    frames = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with no_initialisation(), torch.no_grad():
        yield frames, reference_vision_model(blip)(frames).last_hidden_state


class no_initialisation:
    """Zeros for fresh weights, as drawing them takes seconds for a model of full size."""

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        # Not left as they are: torch's trunc_normal_ draws again until all it got is within its bounds.
        for name in ("uniform_", "normal_"):
            self.patch.setattr(torch.Tensor, name, lambda tensor, *_, **__: tensor.zero_())

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


@pytest.mark.parametrize(
    "task", [task if task == "retrieval" else pytest.param(task, marks=pytest.mark.soak) for task in PARTS]
)
@torch.no_grad()
def test_blip_in_full_size_gives_transformers_features_of_one_frame(
    task: str, blip: dict[str, Tensor], features: tuple[Tensor, Tensor]
) -> None:
    with no_initialisation():
        model = model_for(task, frames=1).eval()
    load_into(model, blip, "model_base.pth")
    frames, expected = features
    found = model.video_tokens(frames[:, None])
    assert found.shape == expected.shape == (2, 197, 768) and expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for name, tensor in model.state_dict().items():
        if name in blip:
            assert torch.equal(tensor.flatten()[::997], blip[name].flatten()[::997]), name
