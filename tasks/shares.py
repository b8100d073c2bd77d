"""Work that the processes share: each computes its parts, and all get the whole."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.distributed import gather_objects, rank, world_size

Part = TypeVar("Part", slice, NDArray)


def shared_out(parts: Sequence[Part], compute: Callable[[Part], NDArray]) -> NDArray:
    """Apply `compute` to each part and join the results in order; every process computes its share and gets all."""
    gathered = gather_objects([compute(part) for part in parts[rank() :: world_size()]])
    return np.concatenate([gathered[number % world_size()][number // world_size()] for number in range(len(parts))])
