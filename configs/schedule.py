"""Per-block schedules of token aggregation, as plain integers: how many tokens leave each axis in each block."""

import math


def blocks_from_amount(amount: int | tuple[int, ...], depth: int, name: str) -> tuple[int, ...]:
    """One number a block from a scalar or a list; `ValueError` naming the key if a list has another length."""
    if isinstance(amount, int):
        return (amount,) * depth
    if len(amount) != depth:
        raise ValueError(f"{name}: {len(amount)} numbers for {depth} blocks; give one a block, or a single number")
    return tuple(amount)


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


def held_schedule(schedule: tuple[int, ...], tokens: int, protected: int) -> tuple[int, ...]:
    """The schedule as an axis of `tokens` can hold it: each block's number capped at what may leave there."""
    held = []
    for amount in schedule:
        held.append(min(amount, capacity(tokens, protected)))
        tokens -= held[-1]
    return tuple(held)


def check_capacity(schedule: tuple[int, ...], tokens: int, protected: int, name: str, unit: str) -> None:
    """`ValueError` if some block of `schedule` takes more than an axis of `tokens` holds there."""
    for block, amount in enumerate(schedule):
        most = capacity(tokens, protected)
        if amount > most:
            raise ValueError(
                f"{name}: block {block} is to lose {amount} of the {tokens} {unit} that reach it; at most {most} can "
                "leave in one block. Lower it, or give the model more to begin with"
            )
        tokens -= amount
