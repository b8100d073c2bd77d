"""What encoding one video costs, counted and not measured."""

from typing import NamedTuple


class Cost(NamedTuple):
    """Giga multiply-accumulates of one video, as the paper counts and as executed, and what is left.

    That is frames and patches (None for joint), and all tokens.
    """

    gmacs: float
    executed_gmacs: float
    frames: int | None
    patches: int | None
    tokens: int
