"""Per-block schedules of token aggregation, as plain integers: how many tokens leave each axis in each block."""

import math
from collections.abc import Sequence


def blocks_from_amount(amount: int | tuple[int, ...], depth: int, name: str) -> tuple[int, ...]:
    """One number a block from a scalar or a list; `ValueError` naming the key if a list has another length."""
    if isinstance(amount, int):
        return (amount,) * depth
    if len(amount) != depth:
        raise ValueError(f"{name}: {len(amount)} numbers for {depth} blocks; give one a block, or a single number")
    return tuple(amount)


def blocks_from_tokens(amount: int | float | Sequence[int | float], depth: int, name: str) -> tuple[int | float, ...]:
    """One number a block, of tokens or a share of them: a scalar for all, or a list whose missing blocks are 0.

    `ValueError` naming the key if a list is longer, or a number neither whole nor below 1.
    """
    amounts = (amount,) * depth if isinstance(amount, int | float) else tuple(amount)
    if len(amounts) > depth:
        raise ValueError(f"{name}: {len(amounts)} numbers for {depth} blocks; give at most one a block")
    for one in amounts:
        if one < 0 or (isinstance(one, float) and one >= 1):
            raise ValueError(f"{name}: {one} is neither a number of tokens (0, 1, 2, ...) nor a share of them below 1")
    return amounts + (0,) * (depth - len(amounts))


def blocks_from_keep(share: float, tokens: int, protected: int, depth: int, name: str) -> tuple[int, ...]:
    """Spread evenly over the blocks what has to leave so that `share` of `tokens` (rounded) is left at the end."""
    leaving = tokens - max(1, round(share * tokens))
    reached = [leaving * block // depth for block in range(depth + 1)]
    schedule = tuple(after - before for before, after in zip(reached[:-1], reached[1:], strict=True))
    if held_schedule(schedule, tokens, protected) != schedule:
        raise ValueError(
            f"{name}: {leaving} of {tokens} tokens cannot leave evenly in {depth} blocks, since at most half may leave "
            "in one; keep more, or give a number per block"
        )
    return schedule


def keep_per_axis(share: float, axes: int) -> float:
    """The share of one axis when all axes together keep `share`, each the same."""
    return math.exp(math.log(share) / axes)


def capacity(tokens: int, protected: int) -> int:
    """At most how many of `tokens` may leave in one block: half of all but the protected, rounded down.

    T frames hold (T - 1) // 2, since the reference counts one as protected (`protected=1`); L patches hold L // 2,
    the class token being kept apart (`protected=0`).
    """
    return max(0, (tokens - protected) // 2)


def num_leaving(amount: int | float, tokens: int, protected: int) -> int:
    """How many of `tokens` leave in one block: an amount, or a share below 1 of them rounded down, capped."""
    wanted = amount if isinstance(amount, int) else int(tokens * amount)
    return min(wanted, capacity(tokens, protected))


def held_schedule(schedule: Sequence[int | float], tokens: int, protected: int) -> tuple[int, ...]:
    """The schedule as an axis of `tokens` can hold it: each block's number capped at what may leave there."""
    held = []
    for amount in schedule:
        held.append(num_leaving(amount, tokens, protected))
        tokens -= held[-1]
    return tuple(held)


def check_capacity(schedule: Sequence[int | float], tokens: int, protected: int, name: str, unit: str) -> None:
    """`ValueError` if some block of `schedule` takes more than an axis of `tokens` holds there."""
    for block, amount in enumerate(schedule):
        most = capacity(tokens, protected)
        wanted = amount if isinstance(amount, int) else int(tokens * amount)
        if wanted > most:
            raise ValueError(
                f"{name}: block {block} is to lose {wanted} of the {tokens} {unit} that reach it; at most {most} can "
                "leave in one block. Lower it, or give the model more to begin with"
            )
        tokens -= wanted
