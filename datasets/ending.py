"""How the processes of a DataLoader learn that they are to end: by a byte in shared memory, without a lock.

torch tells them by an `Event` of `multiprocessing`, whose lock is taken by everybody who looks. A worker that is killed
meanwhile never gives it back, and the trainer and the other workers would wait for it without end.
"""

import copy
import multiprocessing
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
