"""Published files in, published files out, and a start from CLIP."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.stoa.model import StoaModel
from models.stoa.sizes import StoaSizes
from models.stoa.weights import UNUSED, load_published, read_published, start_from_clip, to_published
from tests.parity.cases import read_case, weights_of
from tests.parity.stoa_branches import sizes_of

CASE = read_case(Path(__file__).parents[2] / "parity" / "golden" / "stoa" / "stoa_total.safetensors")
PUBLISHED = weights_of(CASE.tensors, "state_dict.")
SIZES = sizes_of(CASE.meta)


def test_every_weight_of_a_published_file_is_taken_or_known_to_be_unused() -> None:
    model = StoaModel(SIZES)
    loaded = load_published(model, PUBLISHED, SIZES, "the file")
    assert loaded.taken == len(model.state_dict()) and not loaded.fresh and not loaded.copied
    # Of blocks built, only some run.
    assert {name.rpartition(".resblocks.")[0] for name in loaded.absent} == {
        "clip.fusion_transformer",
        "clip.object_fusion.transformer",
    }
    assert len(loaded.unused) + len(loaded.absent) + loaded.taken == len(PUBLISHED)


def test_a_model_goes_back_under_the_published_names_and_shapes() -> None:
    model = StoaModel(SIZES)
    loaded = load_published(model, PUBLISHED, SIZES, "the file")
    exported = to_published(model.state_dict(), SIZES)
    assert exported.keys() == PUBLISHED.keys() - set(loaded.unused) - set(loaded.absent)
    for name, tensor in exported.items():
        assert tensor.shape == PUBLISHED[name].shape and torch.equal(tensor, PUBLISHED[name]), name


@pytest.mark.parametrize("kind", ["pytorch_model.bin.2000", "restore.bin"])
def test_both_kinds_of_files_also_in_half_precision(kind: str, tmp_path: Path) -> None:
    state = {f"module.{name}": tensor.half() for name, tensor in PUBLISHED.items()}
    content = state if kind.startswith("pytorch") else {"global_step": 7, "model_state_dict": state, "epoch": 1}
    torch.save(content, tmp_path / kind)
    model = StoaModel(SIZES)
    load_published(model, read_published(tmp_path / kind), SIZES, kind)
    assert model.fusion_proj.dtype == torch.float32
    torch.testing.assert_close(model.fusion_proj.detach(), PUBLISHED["clip.fusion_proj"], atol=1e-3, rtol=1e-3)


def test_files_of_other_things_are_refused(tmp_path: Path) -> None:
    for content, message in (({"model_state_dict": {"a": 1}}, "no state dict"), ([1], "holds list")):
        torch.save(content, tmp_path / "odd.bin")
        with pytest.raises(ValueError, match=rf"odd\.bin: .*{message}"):
            read_published(tmp_path / "odd.bin")
    (tmp_path / "odd.bin").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"odd\.bin: is no file of plain tensors"):
        read_published(tmp_path / "odd.bin")


def test_weights_of_another_model_are_refused_and_nothing_is_loaded() -> None:
    model = StoaModel(SIZES)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lacking = {name: tensor for name, tensor in PUBLISHED.items() if name != "clip.visual.ln_post.bias"}
    wider = {**PUBLISHED, "clip.fusion_proj": torch.zeros(3, 3)}
    for tensors, message in (
        (lacking, r"lacks 1 weights of parts that it has, the first is visual\.ln_post\.bias"),
        (wider, r"clip\.fusion_proj: has shape \(3, 3\)"),
        ({**PUBLISHED, "clip.novelty": torch.zeros(1)}, r"clip\.novelty: unknown name"),
    ):
        with pytest.raises(ValueError, match=message):
            load_published(model, tensors, SIZES, "the file")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_models_with_fewer_branches_take_what_they_have() -> None:
    sizes = replace(SIZES, objects="none", actions=False)
    loaded = load_published(StoaModel(sizes), PUBLISHED, sizes, "the file")
    assert any(name.startswith("clip.object_act_fusion.") for name in loaded.absent) and not loaded.fresh


def test_a_start_from_clip_copies_blocks_and_positions() -> None:
    clip = {
        name.removeprefix("clip."): tensor
        for name, tensor in PUBLISHED.items()
        if name.startswith(("clip.visual.", "clip.transformer.", "clip.token_", "clip.positional_", "clip.ln_final."))
        or name in ("clip.text_projection", "clip.logit_scale")
    }
    clip = {name: tensor for name, tensor in clip.items() if "object_encoder" not in name and not UNUSED.match(name)}
    model = StoaModel(SIZES)
    fresh_action = model.object_action.detach().clone()
    start_from_clip(model, clip, SIZES, "ViT-B-16.pt")
    state, depth = model.state_dict(), SIZES.vision_depth
    for block in range(SIZES.fusion_depth):
        for part in ("attn.in_proj_weight", "mlp.c_fc.bias", "ln_2.weight"):
            source = state[f"text.transformer.resblocks.{block}.{part}"]
            assert torch.equal(state[f"fusion.transformer.resblocks.{block}.{part}"], source)
    for encoder, block, source in (
        ("object_fusion", 0, depth - 2),
        ("object_act_fusion", 0, depth - 2),
        ("object_act_fusion", 1, depth - 1),
    ):
        copied = state[f"{encoder}.transformer.resblocks.{block}.attn.out_proj.weight"]
        assert torch.equal(copied, state[f"visual.transformer.resblocks.{source}.attn.out_proj.weight"])
    assert torch.equal(state["object_act_fusion.proj"], state["visual.proj"])
    assert torch.equal(state["fusion.positional_embedding"][: SIZES.context_length], clip["positional_embedding"])
    assert torch.equal(state["object_action"], fresh_action)
    # Copies are their own: training one does not move the other.
    with torch.no_grad():
        model.object_act_fusion.proj.add_(1)
    assert not torch.equal(model.object_act_fusion.proj, model.visual.proj)

    with pytest.raises(ValueError, match=r"lacks 1 weights .* visual\.conv1\.weight"):
        start_from_clip(model, {n: t for n, t in clip.items() if n != "visual.conv1.weight"}, SIZES, "ViT-B-16.pt")


def test_the_default_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = StoaModel(StoaSizes())
    millions = {
        name: round(sum(p.numel() for p in part.parameters()) / 1e6, 1) for name, part in model.named_children()
    }
    # Published are 87.2M of the video tower, 63.4M of CLIP's text tower, and 12 fusion blocks of 37.8M, of which 6 run.
    assert millions == {"visual": 87.2, "text": 63.4, "fusion": 19.0, "object_fusion": 7.5, "object_act_fusion": 14.6}
