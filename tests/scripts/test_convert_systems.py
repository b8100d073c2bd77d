"""Files of UMT, TVTSv2, CLIP and STOA-VLP, there and back through the command."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from configs.load import load_any
from configs.schema import CONFIG_CLASSES
from engine.checkpoint_folder import read_weights
from models.checkpoints.load import load_into
from models.parts.clip.image_tower import ImageTower
from models.parts.clip.names import to_transformers
from models.parts.clip.text_tower import TextTower
from models.stoa.weights import UNUSED
from models.systems import SYSTEMS, piece
from models.tvts.model import Tvts
from models.tvts.weights import to_published
from tests.models.parts.clip.copies import write_torchscript
from tests.models.stoa.test_weights import PUBLISHED as STOA_PUBLISHED
from tests.models.tvts.tiny import IMAGE, SIZES, TEXT, with_time
from tests.models.umt.published import KINDS, TINY, published
from tests.scripts.test_convert_checkpoint import convert as convert

WORDS = ("the red one falls and stops", "blue is still")
UMT_SIZE = TINY._replace(words=120)
CLIP_WORDS = 560
SMALL_TEXT = replace(TEXT, vocab_size=CLIP_WORDS)


@pytest.fixture
def tokenizer(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The vocabulary of a system that a test names."""
    folder = tmp_path / "words"
    vocab_size = {"umt": UMT_SIZE.words}.get(request.param, CLIP_WORDS)
    piece(request.param, "tokenizer").make_tokenizer(WORDS, vocab_size).save(folder)
    return folder


def there_and_back(convert, tmp_path: Path, file: Path, tokenizer: Path, back: str) -> tuple[str, dict[str, Tensor]]:
    """What the command says of the way to a folder, and what it writes on the way back."""
    folder = tmp_path / "folder"
    status, said = convert(file, folder, "--tokenizer", tokenizer)
    assert status == 0, said
    status, written = convert(folder, tmp_path / back)
    assert status == 0, written
    return said, read_weights(tmp_path / back)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_every_system_converts() -> None:
    for system in SYSTEMS.values():
        assert system.convert is not None


@pytest.mark.parametrize("tokenizer", ["umt"], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_umt_there_and_back_to_the_bit(tmp_path: Path, convert, tokenizer: Path, kind: str) -> None:
    tensors = published(kind, UMT_SIZE)
    torch.save({"model": tensors, "epoch": 3}, tmp_path / "in.pth")
    said, back = there_and_back(convert, tmp_path, tmp_path / "in.pth", tokenizer, "out.pth")
    assert_equal(back, {name: tensor for name, tensor in tensors.items() if not name.startswith("clip_teacher.")})
    assert torch.load(tmp_path / "out.pth", weights_only=True).keys() == {"model"}
    assert ("clip_teacher.proj: they are the teacher's" in said) == (kind == "pre-training")

    config = load_any(CONFIG_CLASSES, tmp_path / "folder" / "config.yaml", [])
    tasks = {"retrieval": "retrieval", "question answering": "vqa"}
    assert (config.task, config.model.name) == (tasks.get(kind, "pretrain"), "umt")
    if kind == "pre-training":
        assert config.objective.losses == ("vtc", "vtm", "mlm", "uta")
        assert (config.objective.teacher.blocks, config.objective.teacher.width) == (2, 10)


def tvts_weights(prefix: str) -> dict[str, Tensor]:
    """A published file's names: the text tower's own, and before all of them what DDP puts there."""
    torch.manual_seed(0)
    model = Tvts(replace(SIZES, text=SMALL_TEXT))
    with_time(model.video_model)
    return {prefix + name: tensor.detach() for name, tensor in to_published(model.state_dict()).items()}


@pytest.mark.parametrize("tokenizer", ["tvts"], indirect=True)
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_tvts_there_and_back_to_the_bit(tmp_path: Path, convert, tokenizer: Path, prefix: str) -> None:
    tensors = tvts_weights(prefix)
    assert {f"{prefix}text_projection", f"{prefix}video_model.temporal_embedding"} <= tensors.keys()
    torch.save({"state_dict": tensors, "arch": "DistributedDataParallel"}, tmp_path / "in.pth")
    said, back = there_and_back(convert, tmp_path, tmp_path / "in.pth", tokenizer, "out.pth")
    assert_equal(back, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    assert torch.load(tmp_path / "out.pth", weights_only=True).keys() == {"state_dict"}
    assert "retrieval, 6 frames of 16 pixels, 3 blocks of width 24, patches of 4 pixels" in said
    video = load_any(CONFIG_CLASSES, tmp_path / "folder" / "config.yaml", []).video
    assert (video.fit, video.interpolation, video.resize) == ("crop", "nearest", 19)


def clip_file(kind: str, path: Path) -> dict[str, Tensor]:
    """A CLIP of one of three kinds; returns its weights under OpenAI's names."""
    torch.manual_seed(0)
    tensors = {f"visual.{name}": tensor for name, tensor in ImageTower(IMAGE).state_dict().items()}
    tensors |= TextTower(SMALL_TEXT).state_dict()
    tensors = {name: tensor.half().float() for name, tensor in tensors.items()}  # OpenAI's archives hold halves
    if kind == "OpenAI":
        write_torchscript(path / "clip.pt", tensors)
    elif kind == "OpenCLIP":
        save_file({**tensors, "logit_scale": torch.tensor(4.6)}, path / "clip.safetensors")
    else:
        theirs = to_transformers({**tensors, "logit_scale": torch.tensor(4.6)})
        save_file({name: tensor.contiguous() for name, tensor in theirs.items()}, path / "clip.safetensors")
    return tensors


@pytest.mark.parametrize("tokenizer", ["tvts"], indirect=True)
@pytest.mark.parametrize("kind", ["OpenAI", "OpenCLIP", "transformers"])
def test_clip_becomes_a_tvts_that_equals_it_frame_by_frame(tmp_path: Path, convert, tokenizer: Path, kind: str) -> None:
    tensors = clip_file(kind, tmp_path)
    file = tmp_path / ("clip.pt" if kind == "OpenAI" else "clip.safetensors")
    said, back = there_and_back(convert, tmp_path, file, tokenizer, "out.pth")
    assert "12 frames of 16 pixels" in said
    config = load_any(CONFIG_CLASSES, tmp_path / "folder" / "config.yaml", [])

    # The folder holds what loading the file itself gives a model.
    build, formats = piece("tvts", "build"), piece("tvts", "weights")
    model = build(config, None)
    load_into(model, {**tensors, "logit_scale": torch.tensor(4.6)}, "f", formats=formats)
    expected = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    assert_equal(read_weights(tmp_path / "folder"), expected)
    assert torch.equal(back["text_token_embedding.weight"], tensors["token_embedding.weight"])
    block = "transformer.resblocks.0.attn."
    assert torch.equal(back[f"video_model.{block}qkv.weight"], tensors[f"visual.{block}in_proj_weight"])


@pytest.mark.parametrize("tokenizer", ["stoa"], indirect=True)
@pytest.mark.parametrize("name", ["pytorch_model.bin.2000", "restore.bin"])
def test_stoa_there_and_back_to_the_bit(tmp_path: Path, convert, tokenizer: Path, name: str) -> None:
    """On the reference's own small weights, with a vocabulary that a tokenizer can have."""
    tensors = dict(STOA_PUBLISHED)
    words = torch.randn(CLIP_WORDS, tensors["clip.token_embedding.weight"].shape[1])
    tensors |= {"clip.token_embedding.weight": words, "clip.fusion_logit_bias": torch.randn(CLIP_WORDS)}
    halves = {key: tensor.half() for key, tensor in tensors.items()} if name == "restore.bin" else tensors
    torch.save({"model_state_dict": halves} if name == "restore.bin" else halves, tmp_path / name)

    said, back = there_and_back(convert, tmp_path, tmp_path / name, tokenizer, "out.bin.1")
    assert_equal(back, {key: tensor for key, tensor in halves.items() if not UNUSED.match(key)})
    assert torch.load(tmp_path / "out.bin.1", weights_only=True).keys() == back.keys()
    assert "pretrain, 12 frames of 16 pixels, objects fusion, 4 actions" in said
    assert "the published model never reads them" in said
