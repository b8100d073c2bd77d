"""A training step never has the host wait for the device: it reads nothing back and sends nothing the slow way."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from engine.step import TrainingStep
from tests.gloo import run_ranks
from tests.tasks.test_objectives import TASKS, batch
from tests.tiny_runs import config, write_data

READS = (
    "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "unique_dim",
    "unique_consecutive", "bincount",
)  # fmt: skip
META = torch.device("meta")


class Waits(TorchDispatchMode):
    """Names the operations that on a GPU would read a value back, or copy from the host and wait for it.

    `device` stands for the GPU; what is read from another device is not waited for.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.device = device
        self.found: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = function.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        by_mask = name.startswith("index") and any(tensor.dtype == torch.bool for tensor in given[1:])
        counts_itself = function is torch.ops.aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
        on_device = any(tensor.device.type == self.device for tensor in given)
        if on_device and (name in READS or by_mask or counts_itself):
            self.found.append(name)
        blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        sent = any(tensor.device.type == "cpu" and tensor.ndim > 0 for tensor in given)
        if isinstance(result, Tensor) and result.device == META and sent and blocking:
            self.found.append(f"{name} of {[tuple(tensor.shape) for tensor in given]}")
        return result


class Literals(TorchFunctionMode):
    """Names the tensors that are made of Python numbers on another device than the CPU: a copy that is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == META:
            self.found.append(f"{function.__name__}({args[0]})")
        return function(*args, **kwargs)


def steps_of_the_engine(root: Path, kind: str, checkpointing: str) -> tuple[list[str], int]:
    """What waited in two steps, and how many tensors these have changed; on however many processes there are.

    On the CPU nothing tells the device's values from the host's own, which `begin_step` counts. It is therefore left
    out here; another test has it on a device that has no values.
    """
    train = {"batch_size": 8, "accumulate": 2, "activation_checkpointing": checkpointing}
    settings = config(kind, root, train=train, optim={"clip_norm": 1.0})
    task = TASKS[kind](settings, torch.device("cpu")).train()
    training_step = TrainingStep(task, settings, torch.device("cpu"))
    batches = task.train_epoch(0, 0)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    waits = Waits()
    for step in range(2):
        micro_batches = list(islice(batches, 2))
        task.begin_step(step, step / 2, micro_batches)
        with waits:
            training_step(micro_batches)
    return waits.found, sum(not torch.equal(value, before[name]) for name, value in task.state_dict().items())


def steps_of_a_rank(root: Path) -> dict[str, tuple[list[str], int]]:
    return {kind: steps_of_the_engine(root, kind, "none") for kind in TASKS}


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("checkpointing", ["none", "recompute"])
def test_a_step_of_the_engine_reads_nothing_back(tmp_path: Path, kind: str, checkpointing: str) -> None:
    found, changed = steps_of_the_engine(write_data(tmp_path, [1] * 16), kind, checkpointing)
    assert found == [] and changed > 50


def test_a_step_of_two_processes_reads_nothing_back(tmp_path: Path) -> None:
    """Their longest text and their tokens are known to all before the first forward pass."""
    for results in run_ranks(2, steps_of_a_rank, write_data(tmp_path, [1] * 16)):
        assert results.keys() == TASKS.keys()
        assert all(found == [] and changed > 50 for found, changed in results.values())


@pytest.mark.parametrize("kind", TASKS)
def test_losses_need_no_value_from_the_device_and_send_without_waiting(tmp_path: Path, kind: str) -> None:
    """On a device that has no values at all: whatever asks for one is an error there."""
    write_data(tmp_path, [1] * 6, real=False)
    task = TASKS[kind](config(kind, tmp_path), META).to(META)
    given = batch([0, 1, 2, 1])
    moved = tree_map(lambda value: value.to(META) if isinstance(value, Tensor) else value, given)
    with Literals() as literals, Waits(META.type) as waits:
        task.begin_step(3, 0.5, [moved])
        sum(task(moved).values()).backward()
    assert waits.found == [] and literals.found == []
    # Not all parameters: there they no longer share what they do here.
    towers = (task.model.visual_encoder, task.model.text_encoder)
    assert all(parameter.grad is not None for tower in towers for parameter in tower.parameters())


@pytest.mark.parametrize(
    ("waits_in", "seen"),
    [
        (lambda values: values.sum().item(), "_local_scalar_dense"),
        (lambda values: int(values[0]), "_local_scalar_dense"),
        (lambda values: bool(values[0] > 0), "_local_scalar_dense"),
        (lambda values: values[values > 0], "index"),
        (lambda values: values.nonzero(), "nonzero"),
        (lambda values: torch.equal(values, values), "equal"),
        (lambda values: values.repeat_interleave(values.long()), "repeat_interleave"),
    ],
)
def test_what_reads_back_is_seen(waits_in: Callable[[Tensor], Any], seen: str) -> None:
    with Waits() as waits:
        waits_in(torch.ones(3))
    assert seen in waits.found
    with pytest.raises((NotImplementedError, RuntimeError)), Waits():
        waits_in(torch.ones(3, device=META)).tolist()


def test_what_waits_for_a_copy_is_seen() -> None:
    with Waits() as waits:
        torch.ones(3).to(META, non_blocking=True)
        torch.zeros(3, device=META).copy_(torch.ones(3), non_blocking=True)
    assert waits.found == []
    with Waits() as waits, Literals() as literals:
        torch.ones(3).to(META)
        torch.zeros(3, device=META).copy_(torch.ones(3))
        torch.tensor([1.0, 2.0], device=META)
        torch.tensor([1.0, 2.0])
    assert [name.split()[0] for name in waits.found] == ["_to_copy", "copy_"] and len(literals.found) == 1
