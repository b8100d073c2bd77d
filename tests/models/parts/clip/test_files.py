"""CLIP's weights from files of all three kinds, and files that are refused."""

import io
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.parts.clip.files import load_image_tower, load_text_tower, read_clip
from models.parts.clip.image_tower import ImageTower
from models.parts.clip.names import from_transformers, to_transformers
from models.parts.clip.sizes import PUBLISHED
from models.parts.clip.text_tower import TextTower
from models.parts.clip.torchscript import is_torchscript, read_torchscript
from tests.models.parts.clip.copies import IMAGE_SIZES, TEXT_SIZES, Node, save_traced, their_clip, write_torchscript


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in their_clip("gelu").state_dict().items()}


@pytest.fixture(scope="module")
def openai(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    return from_transformers(theirs)


def test_names_go_there_and_back(theirs: dict[str, Tensor], openai: dict[str, Tensor]) -> None:
    image = {f"visual.{name}" for name in ImageTower(IMAGE_SIZES).state_dict()}
    assert openai.keys() == image | TextTower(TEXT_SIZES).state_dict().keys() | {"logit_scale"}
    back = to_transformers(openai)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_unknown_and_missing_names_are_refused(theirs: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="vision_model.encoder.layers.0.gate.weight is no weight of CLIP"):
        from_transformers({"vision_model.encoder.layers.0.gate.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="head.weight is no weight of CLIP"):
        from_transformers({"head.weight": torch.zeros(1)})
    lacking = {name: tensor for name, tensor in theirs.items() if "layers.1.self_attn.v_proj.bias" not in name}
    with pytest.raises(ValueError, match=r"layers.1.self_attn.v_proj.bias is missing beside"):
        from_transformers(lacking)


@pytest.mark.parametrize("kind", ["transformers", "transformers folder", "openclip", "openclip bin", "openai"])
def test_every_kind_of_file(kind: str, theirs: dict[str, Tensor], openai: dict[str, Tensor], tmp_path: Path) -> None:
    tolerance = 0.0
    path = tmp_path / "model.safetensors"
    if kind.startswith("transformers"):
        save_file({**theirs, "vision_model.embeddings.position_ids": torch.arange(17)}, path)
        path = tmp_path if kind.endswith("folder") else path
    elif kind == "openclip":
        save_file({name: tensor.contiguous() for name, tensor in openai.items()}, path)
    elif kind == "openclip bin":
        path = tmp_path / "open_clip_pytorch_model.bin"
        torch.save({**openai, "attn_mask": torch.zeros(12, 12)}, path)
    else:
        path, tolerance = tmp_path / "ViT-B-32.pt", 1e-2
        write_torchscript(path, openai)
    found = read_clip(path)
    assert found.keys() == openai.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        assert (tensor - openai[name]).abs().max() <= tolerance

    image, text = ImageTower(IMAGE_SIZES), TextTower(TEXT_SIZES)
    load_image_tower(image, found, str(path))
    load_text_tower(text, found, str(path))
    assert torch.equal(image.proj, found["visual.proj"]) and torch.equal(text.ln_final.bias, found["ln_final.bias"])


def test_torchscript_archives_are_told_from_others(openai: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(openai, tmp_path / "saved.pt")
    write_torchscript(tmp_path / "scripted.pt", {"proj": torch.zeros(2)})
    assert is_torchscript(tmp_path / "scripted.pt") and not is_torchscript(tmp_path / "saved.pt")


def test_strided_and_shared_tensors_of_an_archive(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    module = Node({})
    module.register_buffer("whole", whole)
    module.register_buffer("part", whole[1:3, ::2])
    module.register_buffer("none", torch.empty(0))
    save_traced(module, tmp_path / "a.pt")
    found = read_torchscript(tmp_path / "a.pt")
    assert torch.equal(found["whole"], whole) and torch.equal(found["part"], whole[1:3, ::2])
    assert found["none"].shape == (0,)


class Attack:
    """Its pickle makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def write_archive(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/constants.pkl", pickle.dumps(()))


def test_nothing_of_an_archive_runs(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.pt", pickle.dumps({"weight": Attack(tmp_path / "ran")}))
    with pytest.raises(ValueError, match="holds no module with weights"):
        read_clip(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", pickle.dumps(3), pickle.dumps([1, 2])[:-1], b"\x80\x02cos\nsystem\n."]
)
def test_damaged_archives_are_refused(content: bytes, tmp_path: Path) -> None:
    write_archive(tmp_path / "a.pt", content)
    with pytest.raises(ValueError, match=r"a\.pt: "):
        read_clip(tmp_path / "a.pt")


def test_an_archive_without_its_numbers_is_refused(tmp_path: Path) -> None:
    write_torchscript(tmp_path / "whole.pt", {"proj": torch.arange(4.0)})
    source = zipfile.ZipFile(tmp_path / "whole.pt")
    for change in ("shorter", "compressed", "missing"):
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            for entry in source.infolist():
                held = source.read(entry)
                is_storage = "/data/" in entry.filename
                if is_storage and change == "missing":
                    continue
                compression = zipfile.ZIP_DEFLATED if is_storage and change == "compressed" else zipfile.ZIP_STORED
                held = held[:2] if is_storage and change == "shorter" else held
                archive.writestr(entry.filename, held, compression)
        with pytest.raises(ValueError, match="cannot be read as a TorchScript archive"):
            read_torchscript(tmp_path / "a.pt")


def test_files_of_another_model_name_it(openai: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        large = {f"visual.{name}": tensor for name, tensor in ImageTower(PUBLISHED["ViT-L/14"][0]).state_dict().items()}
        base_16, base_32 = (ImageTower(PUBLISHED[name][0]) for name in ("ViT-B/16", "ViT-B/32"))
        huge_text = TextTower(PUBLISHED["ViT-H/14"][1])
        base_text = TextTower(PUBLISHED["ViT-B/16"][1]).state_dict()
    with pytest.raises(ValueError, match=r"f.pt: its image tower is ViT-L/14 .*; the model's is ViT-B/16"):
        load_image_tower(base_16, large, "f.pt")
    of_32 = {f"visual.{name}": tensor for name, tensor in base_32.state_dict().items()}
    with pytest.raises(ValueError, match=r"image tower is ViT-B/32 .*; the model's is ViT-B/16"):
        load_image_tower(base_16, of_32, "f.pt")
    with pytest.raises(ValueError, match=r"text tower is ViT-B/32 or ViT-B/16 .*; the model's is ViT-H/14"):
        load_text_tower(huge_text, base_text, "f.pt")
    with pytest.raises(ValueError, match="image tower is an unpublished size .width 24, 3 blocks"):
        load_image_tower(ImageTower(replace(IMAGE_SIZES, depth=2)), openai, "f.pt")


def test_lacking_and_surplus_weights_are_named(openai: dict[str, Tensor]) -> None:
    lacking = {name: tensor for name, tensor in openai.items() if name != "visual.ln_pre.bias"}
    with pytest.raises(ValueError, match="ln_pre.bias: missing"):
        load_image_tower(ImageTower(IMAGE_SIZES), lacking, "f")
    with pytest.raises(ValueError, match="extra: unexpected"):
        load_text_tower(TextTower(TEXT_SIZES), {**openai, "extra": torch.zeros(1)}, "f")
    with pytest.raises(ValueError, match="has no image tower"):
        load_image_tower(ImageTower(IMAGE_SIZES), {"ln_final.bias": torch.zeros(1)}, "f")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        read_clip(tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds none of model.safetensors"):
        read_clip(tmp_path)
    save_file({"layer.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is no CLIP with a ViT.*holds layer.weight"):
        read_clip(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"abc")
    with pytest.raises(ValueError, match="is no safetensors file"):
        read_clip(tmp_path / "broken.safetensors")
    buffer = io.BytesIO()
    torch.save({"weight": Attack(tmp_path / "ran")}, buffer)
    (tmp_path / "attack.bin").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="is no file of plain tensors"):
        read_clip(tmp_path / "attack.bin")
    assert not (tmp_path / "ran").exists()
