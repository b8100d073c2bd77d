"""The random generators of this process: seed, preserve, save and restore them.

They serve dropout and the like. Data order and augmentation derive from (seed, epoch, index) and never use them.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(*numbers: int) -> None:
    """Seed Python, numpy and torch (all devices) from `numbers`, such as (seed, rank)."""
    # The count comes first, since SeedSequence treats (1,) and (1, 0) alike.
    words = np.random.SeedSequence((len(numbers), *numbers)).generate_state(2, np.uint32)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]))
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the generators afterwards, so that what is drawn inside has no effect outside."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


def random_state() -> dict[str, Any]:
    """The state of all generators, for `restore_random_state`."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=True),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the generators to `state`; a state taken without a GPU leaves the GPU's generator alone."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def random_state_to_json(state: dict[str, Any]) -> dict[str, Any]:
    """A state as plain values that JSON can hold."""
    name, keys, *rest = state["numpy"]
    return {
        "python": state["python"],
        "numpy": [name, keys.tolist(), *rest],
        "torch": _to_hex(state["torch"]),
        "cuda": None if state["cuda"] is None else _to_hex(state["cuda"]),
    }


def random_state_from_json(data: dict[str, Any]) -> dict[str, Any]:
    """The state that `random_state_to_json` wrote."""
    version, internal, gauss = data["python"]
    return {
        "python": (version, tuple(internal), gauss),
        "numpy": tuple(data["numpy"]),
        "torch": _from_hex(data["torch"]),
        "cuda": None if data["cuda"] is None else _from_hex(data["cuda"]),
    }


def _to_hex(state: torch.Tensor) -> str:
    return bytes(state.numpy()).hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
