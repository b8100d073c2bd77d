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
from torch.utils._pytree import tree_leaves

from engine.loop import Trainer
from tests.tasks.test_objectives import TASKS, batch
from tests.tiny_runs import config, write_data

READS = (
    "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "unique_dim",
    "unique_consecutive", "bincount",
)  # fmt: skip
META = torch.device("meta")


class Waits(TorchDispatchMode):
    """Names the operations that on a GPU would read a value back, or copy from the host and wait for it."""

    def __init__(self) -> None:
        super().__init__()
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
        if name in READS or by_mask or counts_itself:
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


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("checkpointing", ["none", "recompute"])
def test_a_step_of_the_engine_reads_nothing_back(tmp_path: Path, kind: str, checkpointing: str) -> None:
    write_data(tmp_path, [1] * 8)
    train = {"batch_size": 4, "accumulate": 2, "activation_checkpointing": checkpointing}
    settings = config(kind, tmp_path, train=train, optim={"clip_norm": 1.0})
    task = TASKS[kind](settings, torch.device("cpu"))
    trainer = Trainer(task, settings, torch.device("cpu"), None)
    batches = list(islice(task.train_epoch(0, 0), 4))
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with Waits() as waits:
        for step in range(2):
            trainer.train_step(iter(batches[2 * step : 2 * step + 2]))
    trainer.log.close()
    assert waits.found == [] and trainer.progress.step == 2
    assert sum(not torch.equal(value, before[name]) for name, value in task.state_dict().items()) > 50


@pytest.mark.parametrize("kind", TASKS)
def test_losses_need_no_value_from_the_device_and_send_without_waiting(tmp_path: Path, kind: str) -> None:
    """On a device that has no values at all: whatever asks for one is an error there."""
    write_data(tmp_path, [1] * 6, real=False)
    task = TASKS[kind](config(kind, tmp_path), META).to(META)
    given = batch([0, 1, 2, 1])
    moved = {name: value.to(META) if isinstance(value, Tensor) else value for name, value in given.items()}
    with Literals() as literals, Waits() as waits:
        task.begin_step(3, 0.5)
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
