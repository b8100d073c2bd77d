"""What the processes of a DataLoader would wait for without end, and what they get in its place.

torch tells them that they are to end by an `Event` of `multiprocessing`, whose lock is taken by everybody who looks. A
worker that is killed meanwhile never gives it back, and the trainer and the other workers would wait for it. Here it is
a byte in shared memory, without a lock.

A forked worker inherits what the trainer has thrown away and not collected yet. If this holds threads, as a decoder
does, then whoever frees it waits for them, and in the worker they do not exist.
"""

import copy
import gc
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext


class EndFlag:
    """What torch needs of an `Event`; it is set once, by one process."""

    def __init__(self, context: BaseContext) -> None:
        self._byte = context.RawValue("b", 0)

    def is_set(self) -> bool:
        """Whether the processes are to end."""
        return bool(self._byte.value)

    def set(self) -> None:
        """Let them end."""
        self._byte.value = 1


def without_locked_events() -> BaseContext:
    """The context that processes start in by default, with flags in the place of events."""
    context = copy.copy(multiprocessing.get_context(multiprocessing.get_start_method()))
    context.Event = lambda: EndFlag(context)  # type: ignore[assignment, method-assign, return-value]
    return context


@contextmanager
def without_inherited_garbage() -> Iterator[None]:
    """Processes forked inside never collect garbage that they inherit; this one collects as usual afterwards.

    Whoever else has frozen objects finds them unfrozen.
    """
    gc.collect()  # or garbage would count as old, and stay here for long
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
