"""Checkpoint folders hold what was put in, whole, whatever happens while they are written."""

import argparse
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from torch import nn

from engine.checkpoint_folder import (
    check_same_tensors,
    find_folder,
    load_optimizer,
    load_weights,
    optimizer_tensors,
    read_weights,
    replacing_file,
    replacing_folder,
    save_weights,
    write_json,
)


def write(target: Path, text: str) -> None:
    with replacing_folder(target) as folder:
        (folder / "a.txt").write_text(text)


def test_weights_come_back_and_shared_ones_are_stored_once(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "first": base,
        "tied": base,
        "view": base[1:],  # shares memory, and is another tensor
        "transposed": base.T,
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
        "also_empty": torch.zeros(0, 4),
    }
    save_weights(tensors, tmp_path / "model.safetensors")
    assert set(load_file(tmp_path / "model.safetensors")) == set(tensors) - {"tied"}
    for source in (tmp_path, tmp_path / "model.safetensors"):
        found = read_weights(source)
        assert set(found) == set(tensors)
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_a_file_without_aliases_is_read_too(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    assert torch.equal(read_weights(tmp_path / "other.safetensors")["weight"], torch.ones(2))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors: there is no such checkpoint"):
        read_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"model\.safetensors: is no safetensors file"):
        read_weights(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".bin.2000"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save_are_read(
    tmp_path: Path, suffix: str, zipped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, shared = tmp_path / f"weights{suffix}", torch.randn(3, 2)
    weights = OrderedDict(a=shared, b=shared, half=torch.ones(2, dtype=torch.float16), n=torch.tensor([7]))
    beside = {"optimizer": {"state": {0: torch.zeros(2)}}, "epoch": 3, "config": {"lr": 1e-5, "r": [1, 12]}}
    parameter = {"w": nn.Parameter(torch.ones(2))}
    for held in (weights, {"model": weights, **beside}, {"state_dict": weights}, {"model": {"state_dict": weights}}):
        torch.save(held, path, _use_new_zipfile_serialization=zipped)
        with caplog.at_level("INFO"):
            found = read_weights(path)
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in weights.items())
        assert found["a"].data_ptr() == found["b"].data_ptr()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"{path}: taking its weights, under 'model'; ignoring config, epoch, optimizer"]
    torch.save(parameter, path, _use_new_zipfile_serialization=zipped)
    assert not read_weights(path)["w"].requires_grad


class Trap:
    """Makes a file as soon as it is unpickled by a reader that runs what a pickle asks for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_more_than_plain_data_is_refused_and_nothing_of_it_runs(tmp_path: Path, zipped: bool) -> None:
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    for more, wanted in (
        (Trap(sprung), r"pathlib\.Path\.touch|builtins?\.getattr|getattr"),
        (argparse.Namespace(lr=1), r"argparse\.Namespace"),
        (YAML().load("testa_r: [1, 12]"), r"ruamel\.yaml\.comments\.CommentedMap"),
    ):
        torch.save({"model": {"w": torch.ones(1)}, "config": more}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            ValueError, match=rf"weights\.pth: needs ({wanted}), which is not plain data, so it is"
        ) as caught:
            read_weights(path)
        assert "save its weights alone" in str(caught.value) and "\n" not in str(caught.value)
        assert not sprung.exists()
    torch.load(path, weights_only=False)
    torch.save({"config": Trap(sprung)}, path)
    torch.load(path, weights_only=False)
    assert sprung.exists()  # the trap works


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([torch.ones(1)], "holds list, not tensors by name"),
        ({}, "holds dict, not tensors by name"),
        ({"w": torch.ones(1), "epoch": 3}, "epoch: is int, not a tensor; keep the weights alone"),
    ],
)
def test_files_of_torch_save_without_weights(tmp_path: Path, held: object, words: str) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a\.pt: {words}$"):
        read_weights(tmp_path / "a.pt")


def test_damaged_files_of_torch_save(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(1000)}, path)
    whole = path.read_bytes()
    torch.save({"w": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes()
    for content in (b"", b"hello world", b"PK\x03\x04 something", whole[:-100], whole[:200], old[:-8], old[:30]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.pth: is no file of torch\.save") as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused_with_keys_and_shapes(tmp_path: Path) -> None:
    save_weights({"weight": torch.zeros(3, 2), "extra": torch.zeros(1)}, tmp_path / "model.safetensors")
    module = nn.Linear(4, 3)
    before = module.weight.detach().clone()
    with pytest.raises(ValueError) as error:
        load_weights(module, tmp_path)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    shapes = "weight: has shape (3, 2), this model's is (3, 4)"
    assert lines == ["bias: missing", "extra: not in this model", shapes]
    assert torch.equal(module.weight, before)


def test_a_long_list_of_differences_is_cut(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weight39: missing\n  \.\.\. and 60 more$"):
        check_same_tensors({f"weight{number}": torch.zeros(1) for number in range(100)}, {}, "here")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint_last"
    write(target, "old")
    with pytest.raises(KeyboardInterrupt), replacing_folder(target) as folder:
        (folder / "a.txt").write_text("half")
        raise KeyboardInterrupt
    assert (target / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_last"]


def test_a_crash_between_the_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "checkpoint_last"
    write(target, "old")
    rename = Path.rename

    def crash_on_the_second(path: Path, to: Path) -> Path:
        if path.name.endswith(".tmp"):
            raise SystemExit
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", crash_on_the_second)
    with pytest.raises(SystemExit):
        write(target, "new")
    monkeypatch.undo()
    found = find_folder(target)
    assert found is not None and (found / "a.txt").read_text() == "old"
    write(target, "newer")
    assert find_folder(target) == target and (target / "a.txt").read_text() == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_last"]


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_last.tmp").mkdir()
    (tmp_path / "checkpoint_last.tmp" / "stale").write_text("")
    assert find_folder(tmp_path / "checkpoint_last") is None
    write(tmp_path / "checkpoint_last", "new")
    assert {path.name for path in (tmp_path / "checkpoint_last").iterdir()} == {"a.txt", "SHA256SUMS"}


def test_json_is_written_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "results.json", {"a": object()})
    assert (tmp_path / "results.json").read_text() == '{\n  "a": 1\n}\n'


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "weights.pth"
    with replacing_file(target) as path:
        path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing_file(target) as path:
        path.write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"] and target.read_text() == "old"


def adamw(module: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW([{"params": list(module.named_parameters())}], lr=0.1)


def test_an_optimizer_resumes_by_the_names_of_its_parameters(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, copy = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = adamw(module)
    for _ in range(2):
        module(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
    save_weights(optimizer_tensors(optimizer), tmp_path / "optimizer.safetensors")
    copy.load_state_dict(module.state_dict())
    # The same parameters in the other order.
    other = torch.optim.AdamW([{"params": list(reversed(list(copy.named_parameters())))}], lr=0.1)
    load_optimizer(other, tmp_path / "optimizer.safetensors")
    for one, steps in ((module, optimizer), (copy, other)):
        steps.zero_grad()
        one(torch.ones(1, 3)).square().sum().backward()
        steps.step()
    assert torch.equal(module.weight, copy.weight) and torch.equal(module.bias, copy.bias)
    with pytest.raises(ValueError, match="(weight|bias) was trained there but is not now"):
        load_optimizer(adamw(nn.Sequential(nn.Linear(3, 2))), tmp_path / "optimizer.safetensors")
