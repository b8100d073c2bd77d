"""Which checkpoints a run keeps; a thread writes them while training continues.

checkpoint_last             the newest
checkpoint_step_00000120    the earlier ones; with `checkpoint_last`, `train.keep_checkpoints` in all
checkpoint_best             the weights of the best evaluation, without what only training needs

A kill at any moment leaves an intact one, and at most one `.tmp` or `.removed` folder, which the next write clears
away.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from configs.load import dump
from configs.schema import RunConfig
from engine import checkpoint_folder
from engine.checkpoint_files import BEST as BEST, LAST as LAST, STEP

RESUMED_FROM = (
    checkpoint_folder.WEIGHTS,
    checkpoint_folder.OPTIMIZER,
    checkpoint_folder.CONFIG,
    checkpoint_folder.STATE,
    checkpoint_folder.RANDOM,
)
"""The files that a run needs to resume from a checkpoint."""
BESIDE_TENSORS = 8 * 2**20
"""The most bytes that a checkpoint's tokenizer and lists take."""
_STEP = re.compile(r"checkpoint_step_(\d{8,})")


class CheckpointError(ValueError):
    """A checkpoint could not be written; the text says which one remains and what to do."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of a run's state on the CPU, which may be written while training continues."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor] | None
    documents: dict[str, Any]
    config: RunConfig
    write_extras: Callable[[Path], None]

    @property
    def num_bytes(self) -> int:
        """Its size on disk, rounded up."""
        tensors = [*checkpoint_folder.name_once(self.weights)[0].values(), *(self.optimizer or {}).values()]
        return sum(tensor.nbytes for tensor in tensors) + BESIDE_TENSORS

    def write(self, folder: Path) -> None:
        """Write all of it into `folder`; small files first, so that it is a large one that a full disk cuts short."""
        self.write_extras(folder)
        dump(self.config, folder / checkpoint_folder.CONFIG)
        for name, content in self.documents.items():
            checkpoint_folder.write_json(folder / name, content)
        checkpoint_folder.save_weights(self.weights, folder / checkpoint_folder.WEIGHTS)
        if self.optimizer is not None:
            checkpoint_folder.save_weights(self.optimizer, folder / checkpoint_folder.OPTIMIZER)


def take_snapshot(
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    documents: Mapping[str, Any],
    config: RunConfig,
    write_extras: Callable[[Path], None],
) -> Snapshot:
    """Copy what a checkpoint holds; training may change the originals as soon as this returns.

    Args:
        documents: file name -> its content, written as JSON; `state.json` is among them.
        write_extras: `task.save_extras`; called in another thread, with the folder to write into.
    """
    state = module.state_dict()
    stored, aliases = checkpoint_folder.name_once(state)
    copies = {name: _copy(tensor) for name, tensor in stored.items()}

    moments = None
    if optimizer is not None:
        moments = {name: _copy(tensor) for name, tensor in checkpoint_folder.optimizer_tensors(optimizer).items()}

    if any(tensor.is_cuda for tensor in stored.values()):
        torch.cuda.synchronize()  # once for all copies

    weights = {name: copies[aliases.get(name, name)] for name in state}
    return Snapshot(weights, moments, dict(documents), config, write_extras)


def _copy(tensor: Tensor) -> Tensor:
    # Copies to pinned memory do not wait for the GPU; torch caches such memory for the next snapshot.
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor.detach(), non_blocking=tensor.is_cuda)


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder that it could resume from, newest first, intact or not."""
    steps = [path for path in folder.glob(STEP) if _STEP.fullmatch(path.name)]
    steps.sort(key=_step_of, reverse=True)
    return [path for path in (folder / LAST, *steps) if path.exists()]


class CheckpointWriter:
    """Writes a run's checkpoints in a thread, one after the other; `keep` of them to resume from.

    Only rank 0 has one. An error in the thread is raised once, by `check`, `wait`, `close` or the next write.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._looked_over = False

    def write_last(self, snapshot: Snapshot, step: int) -> None:
        """Make `snapshot`, of optimizer step `step`, the newest checkpoint; waits only for the previous write."""
        self._start(LAST, step, snapshot, lambda: self._write_last(snapshot, step))

    def write_best(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the best checkpoint; waits only for the previous write."""
        step = snapshot.documents[checkpoint_folder.STATE]["step"]
        self._start(BEST, step, snapshot, lambda: self._write(snapshot, self.folder / BEST, None))

    def check(self) -> None:
        """`CheckpointError` if a write has failed; waits for nothing."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until everything is written; `CheckpointError` if that fails."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait until everything is written, and end the thread; `CheckpointError` if writing fails."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _start(self, name: str, step: int, snapshot: Snapshot, write: Callable[[], None]) -> None:
        self.wait()
        self._writing = self._thread.submit(self._in_words, name, step, snapshot.num_bytes, write)

    def _in_words(self, name: str, step: int, needed: int, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, SafetensorError) as error:
            free = shutil.disk_usage(self.folder).free
            newest = next(iter(newest_first(self.folder)), None)
            remaining = f"{newest} remains" if newest else "there is no earlier one"
            fewer = ", or set train.keep_checkpoints=1" if self.keep > 1 else ""
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            raise CheckpointError(
                f"{self.folder / name}: cannot be written at step {step}: {reason} ({needed / 2**20:.0f} MiB needed, "
                f"{free / 2**20:.0f} MiB free); {remaining}; make room there and run the same command again{fewer}"
            ) from error

    def _write_last(self, snapshot: Snapshot, step: int) -> None:
        self._set_damaged_aside()
        self._remove_surplus()  # an earlier start may have kept more

        last, previous = self.folder / LAST, None
        if last.exists():
            earlier = checkpoint_folder.read_json(last / checkpoint_folder.STATE)["step"]
            previous = self.folder / f"checkpoint_step_{earlier:08d}"
            if previous.exists():
                _remove(previous)  # of the same step; `last` is intact
        self._write(snapshot, last, previous)

        for path in newest_first(self.folder)[1:]:
            if _step_of(path) >= step:
                _remove(path)  # the same step, written again
        self._remove_surplus()

    def _write(self, snapshot: Snapshot, target: Path, previous: Path | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(self.folder)
        if shutil.disk_usage(self.folder).free < snapshot.num_bytes:
            raise OSError("there is no room for it")
        with checkpoint_folder.replacing_folder(target, previous) as folder:
            snapshot.write(folder)

    def _set_damaged_aside(self) -> None:
        """Rename damaged checkpoints before the first write, so that only intact ones count as kept.

        They are not removed: a file that cannot be read now may be intact after all.
        """
        if not self._looked_over:
            for path in newest_first(self.folder):
                if checkpoint_folder.find_damage(path, RESUMED_FROM) is not None:
                    aside = path.with_name(f"{path.name}.damaged")
                    shutil.rmtree(aside, ignore_errors=True)  # left from an earlier start
                    path.rename(aside)
            self._looked_over = True

    def _remove_surplus(self) -> None:
        for path in newest_first(self.folder)[self.keep :]:
            _remove(path)


def _step_of(path: Path) -> int:
    found = _STEP.fullmatch(path.name)
    assert found is not None, path
    return int(found[1])


def _remove(folder: Path) -> None:
    """Remove a checkpoint; a kill in between leaves no half of one under its name."""
    doomed = folder.with_name(f"{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)  # if files are still in use, the next write clears them away


def _clear_leftovers(folder: Path) -> None:
    """Remove what killed runs left behind, to free the space."""
    for pattern in ("checkpoint_*.tmp", "checkpoint_*.removed"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
