"""Read the tensors of a TorchScript archive, as OpenAI publishes CLIP, without running its code.

Such an archive holds code and a pickle of the module tree, which `torch.load(weights_only=True)` refuses. Here every
class that the pickle names becomes a plain record of its attributes; only tensors are made.
"""

import copyreg
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Record:
    """Replaces an object of any class: keeps its attributes, and nothing that could run."""

    attributes: dict[str, Any]

    def __init__(self, *arguments: object) -> None:
        self.attributes = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}

    # A pickle may also fill lists and mappings; what it puts there is dropped.
    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


class _Storage(NamedTuple):
    """The numbers of one file of the archive."""

    values: Tensor


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of `torch.jit.save`: it holds constants, which archives of `torch.save` do not."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """All tensors of the archive's module, by their dotted names, on the CPU.

    ValueError if the archive is damaged, compressed, or holds something else than a module with tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            # A pickle may name a function by a number the process has registered; see datasets/annotations.
            copyreg.clear_extension_cache()
            module = _TensorUnpickler(archive, root).load()
    except Exception as error:
        # Damaged content may raise anything.
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: cannot be read as a TorchScript archive ({text}); get the file again") from error

    tensors = dict(_tensors_of(module, ""))
    if not tensors:
        raise ValueError(f"{path}: this TorchScript archive holds no module with weights")
    return tensors


class _TensorUnpickler(pickle.Unpickler):
    """Makes tensors from the archive's storages, and records of everything else."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root
        self._storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Nothing is imported: our own two functions for tensors, a storage's format, or a record."""
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in STORAGES:
            return type(name, (_Record,), {"dtype": STORAGES[name]})
        return type(name, (_Record,), {})

    def persistent_load(self, identifier: Any) -> _Storage:
        """A storage: ("storage", format, file in the archive, device, count)."""
        kind, storage, key, _device, count = identifier
        if kind != "storage" or not hasattr(storage, "dtype"):
            raise ValueError(f"an object kept outside the file, {identifier!r}")
        if key not in self._storages:
            self._storages[key] = self._read_storage(str(key), storage.dtype, int(count))
        return self._storages[key]

    def _read_storage(self, key: str, dtype: torch.dtype, count: int) -> _Storage:
        entry = self._archive.getinfo(f"{self._root}data/{key}")
        size = count * dtype.itemsize
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < size:
            raise ValueError(f"data/{key} holds {entry.file_size} bytes, not {size} uncompressed ones")
        if size == 0:
            return _Storage(torch.empty(0, dtype=dtype))
        return _Storage(torch.frombuffer(bytearray(self._archive.read(entry)), dtype=dtype, count=count))


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: object) -> Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return torch.as_strided(storage.values, size, stride, offset).clone()


def _parameter(tensor: Tensor, *rest: object) -> Tensor:
    return tensor


def _tensors_of(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors below a record, by the path of attributes that leads to each."""
    if isinstance(value, Tensor):
        yield name, value
    children = value.attributes if isinstance(value, _Record) else value
    if isinstance(children, dict):
        for key, child in children.items():
            yield from _tensors_of(child, f"{name}.{key}" if name else str(key))
