"""Per-block aggregation schedules as plain integers: how many tokens leave each axis in each block."""

import math
from collections.abc import Sequence


def blocks_from_amount(amount: int | tuple[int, ...], depth: int, name: str) -> tuple[int, ...]:
    """Expand a scalar or a list to one number a block; a `ValueError` names the key if the list has another length."""
    if isinstance(amount, int):
        return (amount,) * depth
    if len(amount) != depth:
        raise ValueError(f"{name}: {len(amount)} numbers for {depth} blocks; give one a block, or a single number")
    return tuple(amount)


def in_first_blocks(amount: int, blocks: int | None, depth: int) -> int | tuple[int, ...]:
    """The setting that takes `amount` away in each of the first `blocks` of an encoder, or in every block if None."""
    if blocks is None:
        return amount
    if not 0 < blocks <= depth:
        raise ValueError(f"blocks: {blocks} is not from 1 to the {depth} blocks of the encoder")
    return (amount,) * blocks + (0,) * (depth - blocks)


def blocks_from_tokens(amount: int | float | Sequence[int | float], depth: int, name: str) -> tuple[int | float, ...]:
    """Expand to one number a block, a count of tokens or a share: a scalar for all blocks, or a list padded with 0.

    A `ValueError` names the key if a list is too long, or if a number is negative or a share is not below 1.
    """
    amounts = (amount,) * depth if isinstance(amount, int | float) else tuple(amount)
    if len(amounts) > depth:
        raise ValueError(f"{name}: {len(amounts)} numbers for {depth} blocks; give at most one a block")
    for one in amounts:
        if one < 0 or (isinstance(one, float) and one >= 1):
            raise ValueError(f"{name}: {one} is neither a number of tokens (0, 1, 2, ...) nor a share of them below 1")
    return amounts + (0,) * (depth - len(amounts))


def blocks_from_keep(share: float, tokens: int, protected: int, depth: int, name: str) -> tuple[int, ...]:
    """Spread the tokens that leave evenly over the blocks, so that `share` of `tokens` (rounded) remains at the end."""
    leaving = tokens - max(1, round(share * tokens))
    # Round the cumulative count, not each block's: the total is exact and blocks differ by at most 1.
    reached = [leaving * block // depth for block in range(depth + 1)]
    schedule = tuple(after - before for before, after in zip(reached[:-1], reached[1:], strict=True))

    if held_schedule(schedule, tokens, protected) != schedule:
        raise ValueError(
            f"{name}: {leaving} of {tokens} tokens cannot leave evenly in {depth} blocks, since at most half may leave "
            "in one; keep more, or give a number per block"
        )
    return schedule


def kept_of_share(share: float, num_frames: int, num_patches: int) -> int:
    """How many patches of a video stay, if a `share` is to stay (rounded) and the first frame does so as a whole."""
    return max(num_patches, round(share * num_frames * num_patches))


def share_without(amount: int, tokens: int, blocks: int | None) -> float:
    """The share that is kept if `amount` of `tokens` leave before the first block."""
    if blocks is not None:
        raise ValueError("blocks: has no effect on tokens that leave before the first block; leave it out")
    return 1 - amount / tokens


def check_first_frame(share: float | None, num_frames: int, name: str = "aggregation.keep", or_else: str = "") -> None:
    """Refuse a share that would not hold the first frame, which run-length tokens keep as a whole."""
    if share is not None and share * num_frames < 1:
        raise ValueError(
            f"{name}: {share} of {num_frames} frames is less than the first frame, which always stays; keep at least "
            f"{1 / num_frames:.3g}{or_else}"
        )


def check_train_keep(bounds: tuple[float, float] | None, keep: float | None) -> None:
    """Refuse bounds of a drawn share that are no ascending shares, or that no share for evaluation goes with."""
    if bounds is None:
        return
    if not 0 < bounds[0] <= bounds[1] <= 1:
        raise ValueError(f"aggregation.train_keep: {list(bounds)} are not two shares in (0, 1], the lower one first")
    if keep is None:
        raise ValueError(
            "aggregation.train_keep: draws the share that stays, but a threshold decides what does; set "
            "aggregation.keep to the share that evaluation keeps, or leave train_keep out"
        )


def keep_per_axis(share: float, axes: int) -> float:
    """The share that each of `axes` keeps, all alike, so that together they keep `share`: its root."""
    return math.exp(math.log(share) / axes)


def capacity(tokens: int, protected: int) -> int:
    """The most tokens that may leave in one block: half of the unprotected ones, rounded down.

    At most (T - 1) // 2 of T frames leave, since the reference protects one (`protected=1`); at most L // 2 of L
    patches, since the class token is kept apart (`protected=0`).
    """
    return max(0, (tokens - protected) // 2)


def num_leaving(amount: int | float, tokens: int, protected: int) -> int:
    """How many of `tokens` leave in one block: a count, or a share rounded down, capped at `capacity`."""
    wanted = amount if isinstance(amount, int) else int(tokens * amount)
    return min(wanted, capacity(tokens, protected))


def held_schedule(schedule: Sequence[int | float], tokens: int, protected: int) -> tuple[int, ...]:
    """The schedule that an axis of `tokens` can follow: each block's number, capped at what may leave there."""
    held = []
    for amount in schedule:
        held.append(num_leaving(amount, tokens, protected))
        tokens -= held[-1]
    return tuple(held)


def check_capacity(
    schedule: Sequence[int | float], tokens: int, protected: int, name: str, unit: str, first_block: int = 0
) -> None:
    """Raise a `ValueError` if a block of `schedule` takes more than may leave an axis of `tokens` there."""
    for block, amount in enumerate(schedule, start=first_block):
        most = capacity(tokens, protected)
        wanted = amount if isinstance(amount, int) else int(tokens * amount)
        if wanted > most:
            raise ValueError(
                f"{name}: block {block} is to lose {wanted} of the {tokens} {unit} that reach it; at most {most} can "
                "leave in one block. Lower it, or give the model more to begin with"
            )
        tokens -= wanted
