"""What encoding one video costs, counted and not measured."""

from typing import NamedTuple


class Cost(NamedTuple):
    """Giga multiply-accumulates of one video, as the paper counts and as executed, and what is left.

    That is frames and patches (None for joint), and all tokens. `gmacs_without_matching` leaves out the similarities of
    tokens, for a system whose authors count so.
    """

    gmacs: float
    executed_gmacs: float
    frames: int | None
    patches: int | None
    tokens: int
    gmacs_without_matching: float | None = None
