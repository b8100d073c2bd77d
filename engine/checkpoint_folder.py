"""Checkpoint folders: written under a temporary name and renamed; every checksum, key and shape is checked on reading.

model.safetensors       task.state_dict(); a tensor with several names is stored under the first, and the file's
                        metadata `aliases` (JSON, name -> stored name) lists the others
config.yaml             the run's whole configuration
state.json              task, step, epoch, step_in_epoch, steps_per_epoch, best, revision, ...
optimizer.safetensors   AdamW's moments, as `PARAMETER/exp_avg` and so on       } only in checkpoint_last
random.json             the state of every rank's random generators            }
quarantine.json         the videos that could not be read                      }
what task.save_extras wrote
SHA256SUMS              of all these files, as `sha256sum` writes them; folders of older versions have none
"""

import hashlib
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

# Passed on: `engine.checkpoint_files` is a module of its own only for commands that do without torch.
from engine.checkpoint_files import (
    BEST as BEST,
    CONFIG as CONFIG,
    OPTIMIZER as OPTIMIZER,
    PICKLED as PICKLED,
    QUARANTINE as QUARANTINE,
    RANDOM as RANDOM,
    STATE as STATE,
    SUMS as SUMS,
    WEIGHTS as WEIGHTS,
    is_pickled,
)

logger = logging.getLogger("engine")
UNDER = ("model", "model_state_dict", "state_dict")
"""Keys under which files of `torch.save` hold the weights, beside an optimizer and the like."""


@contextmanager
def replacing_folder(target: Path, previous: Path | None = None, temporary: Path | None = None) -> Iterator[Path]:
    """A new folder to write into, which replaces `target` at the end; on any error the old one stays.

    The old one is renamed to `previous`, or removed if that is None. Until the end the new one is `temporary`, which
    several processes that may write at the same time have to name differently.
    """
    temporary, aside = temporary or target.with_name(f"{target.name}.tmp"), previous or _aside(target)
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed while writing
    temporary.mkdir(parents=True)

    try:
        yield temporary
        _write_sums(temporary)
        for path in [*temporary.rglob("*"), temporary]:
            _flush(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise

    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    temporary.rename(target)
    _flush(target.parent)
    if previous is None:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """A path to write to, which replaces the file `target` at the end; on any error the old one stays."""
    temporary = target.with_name(f"{target.name}.tmp")
    temporary.parent.mkdir(parents=True, exist_ok=True)

    try:
        yield temporary
        _flush(temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

    temporary.replace(target)
    _flush(target.parent)


def find_folder(target: Path) -> Path | None:
    """The intact checkpoint named `target`: in its place, or moved aside by a run killed while replacing it."""
    return next((folder for folder in (target, _aside(target)) if folder.exists()), None)


def find_damage(folder: Path, required: Sequence[str] = (), *, whole: bool = True) -> str | None:
    """What is wrong with the first damaged file of a checkpoint folder, in words; None if nothing is.

    Checks the `required` files and, with `whole`, all that SHA256SUMS lists; without sums, only that they exist.
    """
    sums: dict[str, str] | None = None
    name = SUMS
    try:
        if (folder / SUMS).exists():
            text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
            parts = [line.partition("  ") for line in text.splitlines()]
            sums = {name: digest for digest, _, name in parts}

        # Only files found in the folder are opened: a list of sums may name any path, even a device.
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        for name in dict.fromkeys([*required, *(sums if sums and whole else ())]):
            if name not in files:
                return f"{name or 'a file'} is missing"
            if sums is not None and sums.get(name) != _sha256(files[name]):
                return f"{name} is not what {SUMS} says"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None


def write_json(path: Path, data: Any) -> None:
    """Write `path` whole or not at all."""
    text = json.dumps(data, indent=2) + "\n"
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_lines(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write a JSONL file, one row a line."""
    # `dumps` escapes what UTF-8 cannot encode, such as half of a surrogate pair.
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` wrote; `ValueError` with the file's name if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is damaged ({error}); restore it from a copy") from error


def name_once(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Each tensor once, under the first of its names; and `aliases`, which map its other names to that one."""
    stored: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[tuple, str] = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        place = (storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and place in names:
            aliases[name] = names[place]
        else:
            names[place] = name
            stored[name] = tensor.detach()
    return stored, aliases


def save_weights(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write named tensors; a tensor with several names is stored once."""
    stored, aliases = name_once(tensors)
    storages: set[int] = set()
    for name, tensor in stored.items():
        storage = tensor.untyped_storage().data_ptr()
        # safetensors refuses two views of one storage.
        stored[name] = (tensor.clone() if storage in storages else tensor).cpu().contiguous()
        storages.add(storage)
    save_file(stored, path, {"aliases": json.dumps(aliases)})


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """All named tensors of a checkpoint folder, a safetensors file or a file of `torch.save`, on the CPU.

    A file of `torch.save` (.pth, .pt, .bin, .bin.STEP) holds tensors by name, at the top or under a key of `UNDER`;
    anything else in it is ignored. No code in it is run: `ValueError` for a file that holds more than plain data. A
    folder's weights are compared with its checksum, if it has one; a lone file is taken as it is.
    """
    if path.is_dir():
        damage = find_damage(path, [WEIGHTS], whole=False) if (path / WEIGHTS).exists() else None
        if damage is not None:
            raise ValueError(f"{path}: {damage}: copy the folder again from an intact copy, or take another")
        path = path / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{path}: there is no such checkpoint")
    if is_pickled(path):
        return _read_pickled(path)

    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            aliases = json.loads((file.metadata() or {}).get("aliases", "{}"))
    except SafetensorError as error:
        raise ValueError(f"{path}: is no safetensors file: {error}") from error

    return {**tensors, **{name: tensors[stored] for name, stored in aliases.items()}}


def _read_pickled(path: Path) -> dict[str, torch.Tensor]:
    try:
        # Memory-mapped, so that whatever we do not take, such as an optimizer, is never read.
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted is None:
            raise ValueError(f"{path}: is no file of torch.save") from error
        raise ValueError(
            f"{path}: needs {wanted[1]}, which is not plain data, so it is not opened; if you trust it, save its "
            "weights alone: torch.save({'model': torch.load(FILE, weights_only=False)['model']}, NEW_FILE)"
        ) from error
    except Exception as error:  # bytes that are no pickle can raise anything
        raise ValueError(f"{path}: is no file of torch.save, or is damaged: {_first_sentence(error)}") from error

    for key in UNDER:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            beside = sorted(str(other) for other in held if other != key)
            if beside:
                logger.info("%s: taking its weights, under %r; ignoring %s", path, key, ", ".join(beside))
            held = held[key]

    if not isinstance(held, dict) or not held:
        raise ValueError(f"{path}: holds {type(held).__name__}, not tensors by name")
    strange = next((name for name, tensor in held.items() if not isinstance(tensor, torch.Tensor)), None)
    if strange is not None:
        raise ValueError(f"{path}: {strange}: is {type(held[strange]).__name__}, not a tensor; keep the weights alone")
    return {str(name): tensor.detach() for name, tensor in held.items()}


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Put the weights of a checkpoint into `module`; `ValueError` with all keys and shapes that differ."""
    tensors = read_weights(path)
    check_same_tensors(module.state_dict(), tensors, str(path))
    module.load_state_dict(tensors)


def check_same_tensors(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], source: str) -> None:
    """`ValueError` unless `found` has the names and shapes of `expected`."""
    lines = [f"{name}: missing" for name in expected if name not in found]
    lines += [f"{name}: not in this model" for name in found if name not in expected]
    for name in expected:
        if name in found and expected[name].shape != found[name].shape:
            lines.append(f"{name}: has shape {tuple(found[name].shape)}, this model's is {tuple(expected[name].shape)}")

    if lines:
        more = [f"... and {len(lines) - 40} more"] if len(lines) > 40 else []
        listing = "\n  ".join([*lines[:40], *more])
        raise ValueError(f"{source}: belongs to another model than the configuration describes:\n  {listing}")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's tensors, by the names of its parameters; rates and decays come from the configuration."""
    names = _parameter_names(optimizer)
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}/{key}": value for index, entry in state.items() for key, value in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Restore what `optimizer_tensors` gave, whatever groups its parameters are in now."""
    index_of = {name: index for index, name in enumerate(_parameter_names(optimizer))}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in read_weights(path).items():
        parameter, key = name.rsplit("/", 1)
        if parameter not in index_of:
            raise ValueError(f"{path}: {parameter} was trained there but is not now; use a new output_dir")
        state.setdefault(index_of[parameter], {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    return [name for group in optimizer.param_groups for name in group["param_names"]]


def _aside(target: Path) -> Path:
    return target.with_name(f"{target.name}.old")


def _first_sentence(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__


def _write_sums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
