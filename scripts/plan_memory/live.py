"""How many bytes of tensors are alive, of which kind, and how many at most: from the operations themselves."""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Kind = Literal[
    "parameters", "gradients", "optimizer", "twin", "queue", "teacher", "inputs", "activations", "temporaries"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
BLOCK = 512
"""Bytes that the GPU's allocator rounds each tensor up to."""


class _Held(NamedTuple):
    """A storage that is alive; the reference has it taken out when it dies."""

    reference: weakref.ref
    size: int
    kind: Kind


class LiveMemory(TorchDispatchMode):
    """Notes each storage that an operation makes, until it is freed. Within this context; views are no new storage.

    Attributes:
        kind: what the next storages are of; whoever knows better says so with `name`.
        now: bytes alive by kind.
        at_peak: the same when their sum was largest since `forget_peak`.
    """

    def __init__(self, block: int = BLOCK) -> None:
        super().__init__()
        self.block, self.kind = block, "temporaries"
        self.now: Counter[str] = Counter()
        self.at_peak: Counter[str] = Counter()
        self._held: dict[int, _Held] = {}
        self._total = self._most = 0

    kind: Kind

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._hold(leaf, self.kind, is_new=True)
        if self._total > self._most:
            self._most, self.at_peak = self._total, self.now.copy()
        return made

    def name(self, kind: Kind, tensors: Iterable[Tensor]) -> None:
        """Count these as `kind` from now on, whatever they were."""
        for tensor in tensors:
            self._hold(tensor, kind, is_new=False)

    def forget_peak(self) -> None:
        """Take what is alive now for the most there was."""
        self._most, self.at_peak = self._total, self.now.copy()

    def _hold(self, tensor: Tensor, kind: Kind, *, is_new: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata  # the storage's address: its Python object alone may be made again
        held = self._held.get(key)
        if held is not None and is_new:
            return
        if held is not None:
            self._release(key)
        size = -(-storage.nbytes() // self.block) * self.block
        self._held[key] = _Held(weakref.ref(storage, lambda _: self._release(key)), size, kind)
        self.now[kind] += size
        self._total += size

    def _release(self, key: int) -> None:
        held = self._held.pop(key)
        self.now[held.kind] -= held.size
        self._total -= held.size


def on_same_device(module: torch.nn.Module, device: torch.device) -> None:
    """Give a module that was made on the meta device tensors of `device`, in place; what was tied stays tied."""
    made: dict[int, torch.nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            if id(parameter) not in made:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                made[id(parameter)] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
            setattr(part, name, made[id(parameter)])
        for name, buffer in part.named_buffers(recurse=False, remove_duplicate=False):
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))
