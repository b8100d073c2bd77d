"""Published files in, published files out, and a start from CLIP."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.checkpoint_folder import read_weights
from models.checkpoints.load import LoadReport, load_into
from models.parts.clip.names import to_transformers
from models.stoa.formats import FORMATS
from models.stoa.model import StoaModel
from models.stoa.sizes import StoaSizes
from models.stoa.weights import UNUSED, own_name, published_name, to_published
from tests.parity.cases import read_case, weights_of
from tests.parity.stoa_branches import sizes_of

CASE = read_case(Path(__file__).parents[2] / "parity" / "golden" / "stoa" / "stoa_total.safetensors")
PUBLISHED = weights_of(CASE.tensors, "state_dict.")
SIZES = sizes_of(CASE.meta)
UNREAD, DEEPER = "the published model never reads it", "this model has no such block"


def load(model: StoaModel, tensors: dict[str, Tensor]) -> LoadReport:
    return load_into(model, tensors, "the file", formats=FORMATS)


def clip_weights() -> dict[str, Tensor]:
    """CLIP's part of the golden weights, under OpenAI's names."""
    towers = ("clip.visual.", "clip.transformer.", "clip.token_", "clip.positional_", "clip.ln_final.")
    found = {name: tensor for name, tensor in PUBLISHED.items() if name.startswith(towers)}
    found |= {name: PUBLISHED[name] for name in ("clip.text_projection", "clip.logit_scale")}
    bare = {name.removeprefix("clip."): tensor for name, tensor in found.items()}
    return {name: tensor for name, tensor in bare.items() if "object_encoder" not in name and not UNUSED.match(name)}


def test_every_weight_of_a_published_file_is_taken_or_known_to_be_unused() -> None:
    model = StoaModel(SIZES)
    report = load(model, {f"module.{name}": tensor for name, tensor in PUBLISHED.items()})
    assert report.kind == "STOA-VLP" and report.notes == [] and report.left.keys() == {UNREAD, DEEPER}
    assert sum(report.taken.values()) == len(model.state_dict())
    assert sum(report.taken.values()) + sum(map(len, report.left.values())) == len(PUBLISHED)
    # Of blocks built, only some run.
    parts = {name.rpartition(".resblocks.")[0] for name in report.left[DEEPER]}
    assert parts == {"fusion.transformer", "object_fusion.transformer"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, PUBLISHED[published_name(name)].reshape(tensor.shape)), name


def test_a_model_goes_back_under_the_published_names_and_shapes() -> None:
    model = StoaModel(SIZES)
    report = load(model, PUBLISHED)
    exported = to_published(model.state_dict(), SIZES)
    deeper = {name for name in PUBLISHED if own_name(name) in report.left[DEEPER]}
    assert exported.keys() == PUBLISHED.keys() - set(report.left[UNREAD]) - deeper
    for name, tensor in exported.items():
        assert tensor.shape == PUBLISHED[name].shape and torch.equal(tensor, PUBLISHED[name]), name


@pytest.mark.parametrize("kind", ["pytorch_model.bin.2000", "restore.bin"])
def test_both_kinds_of_files_also_in_half_precision(kind: str, tmp_path: Path) -> None:
    state = {f"module.{name}": tensor.half() for name, tensor in PUBLISHED.items()}
    content = state if kind.startswith("pytorch") else {"global_step": 7, "model_state_dict": state, "epoch": 1}
    torch.save(content, tmp_path / kind)
    model = StoaModel(SIZES)
    load(model, read_weights(tmp_path / kind))
    assert model.fusion_proj.dtype == torch.float32
    torch.testing.assert_close(model.fusion_proj.detach(), PUBLISHED["clip.fusion_proj"], atol=1e-3, rtol=1e-3)


def test_parts_that_a_file_lacks_start_from_its_towers() -> None:
    model = StoaModel(SIZES)
    fresh = model.object_action.detach().clone()
    lacking = ("clip.object_act_fusion", "clip.object_action", "clip.visual.transformer.object_encoder")
    report = load(model, {name: tensor for name, tensor in PUBLISHED.items() if not name.startswith(lacking)})
    assert any("object_act_fusion: copied from CLIP" in note for note in report.notes)
    assert any("object_encoder is not in the file" in note for note in report.notes)
    assert torch.equal(model.object_act_fusion.proj, model.visual.proj) and torch.equal(model.object_action, fresh)


def test_weights_of_another_model_are_refused_and_nothing_is_loaded() -> None:
    model = StoaModel(SIZES)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lacking = {name: tensor for name, tensor in PUBLISHED.items() if name != "clip.visual.ln_post.bias"}
    for tensors, message in (
        (lacking, r"the file: .*\n  visual\.ln_post\.bias: missing"),
        ({**PUBLISHED, "clip.fusion_proj": torch.zeros(3, 3)}, r"fusion_proj: has shape \(3, 3\)"),
        (
            {**PUBLISHED, "clip.novelty": torch.zeros(1)},
            r"has 1 names that STOA-VLP does not, the first is clip\.novelty",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            load(model, tensors)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_positions_of_published_files_are_not_stretched() -> None:
    longer = StoaModel(replace(SIZES, fusion_positions=SIZES.fusion_positions + 1))
    with pytest.raises(ValueError, match=r"fusion\.positional_embedding: has shape"):
        load(longer, PUBLISHED)


def test_tables_over_time_fit_another_number_of_frames() -> None:
    published = StoaModel(SIZES)
    load(published, PUBLISHED)
    start = {f"model.{name}": tensor for name, tensor in published.state_dict().items()}
    tables = ("object_frame_pos_emb", "visual.object_encoder.box_categories")
    for num_frames in (SIZES.num_frames - 1, 2 * SIZES.num_frames):
        model = StoaModel(replace(SIZES, num_frames=num_frames, fusion_positions=SIZES.fusion_positions))
        report = load(model, start)
        assert sum(f"is of {SIZES.num_frames} frames, the model of {num_frames}" in note for note in report.notes) == 2
        # Fewer frames take the first rows; of twice as many, two neighbours share one.
        rows = [row if num_frames < SIZES.num_frames else row // 2 for row in range(num_frames)]
        for name, tensor in model.state_dict().items():
            expected = published.state_dict()[name]
            assert torch.equal(tensor, expected[rows] if name in tables else expected), name


def test_models_with_fewer_branches_take_what_they_have() -> None:
    report = load(StoaModel(replace(SIZES, objects="none", actions=False)), PUBLISHED)
    assert report.notes == []
    assert {"object_act_fusion", "object_action"} <= set(report.left["this task has no such part"])


@pytest.mark.parametrize("names", ["openai", "transformers"])
def test_a_start_from_clip_copies_blocks_and_positions(names: str) -> None:
    clip, model = clip_weights(), StoaModel(SIZES)
    fresh_action, fresh_positions = model.object_action.detach().clone(), model.fusion.positional_embedding[-1].clone()
    report = load(model, clip if names == "openai" else to_transformers(clip))
    assert report.kind == "CLIP" and any("positions are those of CLIP's texts" in note for note in report.notes)

    state, depth = model.state_dict(), SIZES.vision_depth
    for block in range(SIZES.fusion_depth):
        for part in ("attn.in_proj_weight", "mlp.c_fc.bias", "ln_2.weight"):
            source = state[f"text.transformer.resblocks.{block}.{part}"]
            assert torch.equal(source, clip[f"transformer.resblocks.{block}.{part}"])
            assert torch.equal(state[f"fusion.transformer.resblocks.{block}.{part}"], source)
    for encoder, block, source in (
        ("object_fusion", 0, depth - 2),
        ("object_act_fusion", 0, depth - 2),
        ("object_act_fusion", 1, depth - 1),
    ):
        copied = state[f"{encoder}.transformer.resblocks.{block}.attn.out_proj.weight"]
        assert torch.equal(copied, clip[f"visual.transformer.resblocks.{source}.attn.out_proj.weight"])
    assert torch.equal(state["object_act_fusion.proj"], clip["visual.proj"])
    assert torch.equal(state["fusion.positional_embedding"][: SIZES.context_length], clip["positional_embedding"])
    assert torch.equal(state["fusion.positional_embedding"][-1], fresh_positions)
    assert torch.equal(state["object_action"], fresh_action)
    # Copies are their own: training one does not move the other.
    with torch.no_grad():
        model.object_act_fusion.proj.add_(1)
    assert not torch.equal(model.object_act_fusion.proj, model.visual.proj)

    with pytest.raises(ValueError, match=r"visual\.conv1\.weight: missing"):
        load(model, {name: tensor for name, tensor in clip.items() if name != "visual.conv1.weight"})
    with pytest.raises(ValueError, match="a CLIP without its text tower"):
        load(model, {name: tensor for name, tensor in clip.items() if name.startswith("visual.")})


def test_the_default_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = StoaModel(StoaSizes())
    millions = {
        name: round(sum(p.numel() for p in part.parameters()) / 1e6, 1) for name, part in model.named_children()
    }
    # Published are 87.2M of the video tower, 63.4M of CLIP's text tower, and 12 fusion blocks of 37.8M, of which 6 run.
    assert millions == {"visual": 87.2, "text": 63.4, "fusion": 19.0, "object_fusion": 7.5, "object_act_fusion": 14.6}
