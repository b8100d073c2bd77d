"""The `aggregation` section of any system: which reducer, and how much it takes away.

`configs/reducers.py` names the settings of each; how they become a schedule, an encoder's `model` section says.
"""

from dataclasses import dataclass
from typing import Literal

from configs.reducers import (
    AMOUNTS,
    BEFORE_BLOCKS,
    INSTEAD_OF_KEEP,
    OF_INSIDE,
    OF_SOME_REDUCERS,
    REDUCER_SETTINGS,
    UNSIZED,
    WEIGHED,
    WITHOUT,
    InsideName,
    ReducerName,
    remedy_for_reducer,
)
from configs.schedule import check_train_keep

Amount = int | tuple[int, ...]
"""How many tokens leave per block: one number for all blocks, or a list with one a block."""
TokenAmount = int | float | tuple[int | float, ...]
"""The same for joint tokens; with saliency missing blocks are 0, and a float is a share of the remaining tokens."""


@dataclass(frozen=True, kw_only=True)
class AggregationConfig:
    """Which tokens merge, and how many; can be changed on any checkpoint at evaluation.

    `keep` is the share of patch tokens that remain at the end, spread evenly over axes and blocks; it replaces the
    amounts. Saliency merges joint tokens, or, with divided attention, patches within each frame.

    `run_length` drops patches before the first block that do not change over time. They stay if they change by more
    than `threshold` standard deviations, so each video keeps as many as it needs; with `keep` the share that changes
    most stays instead. `kept_by: random` is the control for that: a share that is drawn blindly, the same patches in
    every video, besides the whole first frame. `weigh_lengths`, which is ours, lets a patch count as often as its run
    is long, in attention and in the pooled feature. In encoders with joint attention, `inside` lets ToMe or saliency
    merge `tokens_per_block` of the patches that `keep` leaves; that both go together is ours, too.

    With `train_keep: [lowest, highest]`, which is ours, each training step draws the share that run-length tokens keep,
    uniformly from that range, so that one checkpoint serves any budget. Evaluation keeps `keep`.

    `tempme` is for towers that see each frame alone. Patches of a frame merge (`patches_per_block`) until frames are
    joined to groups: before each of `join_blocks`, counted from 0, so many neighbours become one (`join_frames`). Of a
    joined group's tokens the share `across_frames` merges before attention; after it and in all later blocks
    `within_groups` does. Without `join_blocks` all frames are joined where the tower begins to see them together.

    `quadtree` merges squares of like patches before the first block: where the cosine of a square with each of its
    parts is `spatial_threshold` or more, and squares of neighbouring frames where theirs is `temporal_threshold` (null:
    none). The largest squares are `root_level` halvings smaller than they could be. With `keep` each video has
    thresholds of its own, which leave it as near to that share as possible from below.

    `frame_match` and `order` belong to geometry. With `merge_weight: saliency`, which is ours, tokens that attend
    sharply count for more in what they merge into (geometry and tome). `proportional_attention` adds log(size) to
    attention's keys and `weighted_pooling` weighs the pooled feature by size; both are off in every released TESTA
    number.
    """

    reducer: ReducerName = "none"
    frames_per_block: Amount = 0
    patches_per_block: Amount = 0
    tokens_per_block: TokenAmount = 0
    keep: float | None = None
    frame_match: Literal["vote", "mean"] = "vote"
    order: Literal["reference", "sorted"] = "reference"
    merge_weight: Literal["size", "saliency"] = "size"
    threshold: float = 0.1
    kept_by: Literal["change", "random"] = "change"
    weigh_lengths: bool = False
    train_keep: tuple[float, float] | None = None
    inside: InsideName = "none"
    join_blocks: tuple[int, ...] = ()
    join_frames: tuple[int, ...] = ()
    across_frames: float = 0.3
    within_groups: float = 0.1
    spatial_threshold: float = 0.9
    temporal_threshold: float | None = None
    root_level: int = 0
    proportional_attention: bool = False
    weighted_pooling: bool = False

    def __post_init__(self) -> None:
        allowed = REDUCER_SETTINGS[self.reducer]
        for name in (*AMOUNTS, "keep", *OF_SOME_REDUCERS):
            value = getattr(self, name)
            if value != getattr(type(self), name) and name not in allowed:
                raise ValueError(
                    f"aggregation.{name}: {value} has no effect with reducer {self.reducer!r}, "
                    f"{remedy_for_reducer(self.reducer, name)}"
                )

        if self.reducer == "run_length":
            self._check_inside()
        for name in AMOUNTS:
            amount = getattr(self, name)
            amounts = (amount,) if isinstance(amount, int | float) else (*amount, 0)
            if min(amounts) < 0:
                raise ValueError(f"aggregation.{name}: {amount} is negative; 0 leaves that axis alone")
            if self.in_blocks != "saliency" and any(isinstance(one, float) for one in amounts):
                raise ValueError(f"aggregation.{name}: {amount} is no whole number; shares are for saliency")

        if self.keep is not None:
            if not 0 < self.keep <= 1:
                raise ValueError(f"aggregation.keep: {self.keep} is not a share in (0, 1]")
            if self.reducer != "run_length" and any(getattr(self, name) != 0 for name in AMOUNTS):
                raise ValueError("aggregation.keep: give either keep or the numbers per block, not both")

        self._check_run_length()
        self._check_sizes()
        self._check_joining()
        self._check_squares()

    def _check_sizes(self) -> None:
        """Refuse settings for the sizes of tokens where all are 1, or where attention or pooling weighs them anyway."""
        for name in ("proportional_attention", "weighted_pooling"):
            if not getattr(self, name):
                continue
            if self.weigh_lengths:
                raise ValueError(f"aggregation.{name}: leave it out; weigh_lengths includes it")
            if self.in_blocks in UNSIZED:
                remedy = "; set weigh_lengths or inside" if self.reducer == "run_length" else ""
                raise ValueError(
                    f"aggregation.{name}: has no effect with reducer {self.reducer!r}: every size stays 1{remedy}"
                )
        if self.in_blocks in WEIGHED and self.proportional_attention:
            raise ValueError(f"aggregation.proportional_attention: leave it out; {self.in_blocks!r} always has it")

    def _check_joining(self) -> None:
        """Refuse blocks and numbers of groups that do not belong together, and shares that are none."""
        if len(self.join_blocks) != len(self.join_frames):
            raise ValueError(
                f"aggregation.join_frames: {list(self.join_frames)} for join_blocks {list(self.join_blocks)}; give a "
                "number for each block"
            )
        if list(self.join_blocks) != sorted(set(self.join_blocks)) or any(count < 2 for count in self.join_frames):
            raise ValueError("aggregation.join_blocks: blocks have to ascend, and join 2 groups or more each")
        for name in ("across_frames", "within_groups"):
            share = getattr(self, name)
            if not 0 <= share <= 0.5:
                raise ValueError(f"aggregation.{name}: {share} is not from 0 to 0.5; at most half may leave at once")
            if self.keep is not None and share != getattr(type(self), name):
                raise ValueError(f"aggregation.{name}: has no effect beside keep, which says how much leaves")

    def _check_run_length(self) -> None:
        """Refuse a threshold beside a share, which says the same in another way."""
        if self.threshold < 0:
            raise ValueError(f"aggregation.threshold: {self.threshold} is negative; no change is less than 0")
        if self.keep is not None and self.threshold != type(self).threshold:
            raise ValueError("aggregation.threshold: give either the threshold or keep, not both")
        check_train_keep(self.train_keep, self.keep)

    def _check_inside(self) -> None:
        """Refuse settings for merging inside the blocks where nothing merges there, or not in a way that has them."""
        for name, ways in OF_INSIDE.items():
            value = getattr(self, name)
            if value != getattr(type(self), name) and self.inside not in ways:
                raise ValueError(
                    f"aggregation.{name}: {value} has no effect on run-length tokens with aggregation.inside "
                    f"{self.inside!r}; set that to {' or '.join(ways)}"
                )

    def _check_squares(self) -> None:
        """Refuse cosines that are none, thresholds beside a share, and levels above the coarsest."""
        for name in ("spatial_threshold", "temporal_threshold"):
            threshold = getattr(self, name)
            if threshold is not None and not -1 <= threshold <= 1:
                raise ValueError(f"aggregation.{name}: {threshold} is no cosine from -1 to 1")
            if self.keep is not None and threshold != getattr(type(self), name):
                raise ValueError(f"aggregation.{name}: has no effect beside keep, from which thresholds follow")
        if self.root_level < 0:
            raise ValueError(f"aggregation.root_level: {self.root_level} is negative; 0 is the coarsest level")

    @property
    def in_blocks(self) -> ReducerName:
        """What takes tokens away inside the blocks, beside what leaves before them."""
        return self.inside if self.reducer == "run_length" else self.reducer

    @property
    def is_ragged(self) -> bool:
        """Whether a video's content decides how many tokens it keeps, so that videos of a batch differ."""
        return self.reducer == "quadtree" or self.has_open_rows

    @property
    def has_open_rows(self) -> bool:
        """Whether nothing but a video's content says how long its row of tokens is; else padding fills it up."""
        return self.reducer in BEFORE_BLOCKS and self.keep is None

    @staticmethod
    def inherited(lower: dict, higher: dict) -> dict:
        """The settings of a lower layer that survive a higher layer (a file over its base, an override).

        A new reducer drops the inherited settings that it does not use, so `aggregation.reducer=none` alone switches
        off a checkpoint's aggregation. `keep` and the amounts per block, or the threshold, drop each other, except that
        run-length tokens have amounts of what merges inside. Those go with another reducer, and with `inside=none`.
        What goes instead of `keep` drops `train_keep` and `kept_by` too.
        """
        kept = dict(lower)
        before = lower.get("reducer", "none")
        reducer = higher.get("reducer", before)
        if reducer != before:
            own = (*REDUCER_SETTINGS.get(reducer, ()), "reducer")
            own += () if reducer in UNSIZED else ("weighted_pooling",)
            own += () if reducer in (*UNSIZED, *WEIGHED) else ("proportional_attention",)
            gone = tuple(OF_INSIDE) if "run_length" in (before, reducer) else ()
            kept = {name: value for name, value in kept.items() if name in own and name not in gone}

        # What merges inside the blocks may change alone; its amounts go together with `keep`.
        gone = WITHOUT.get(higher.get("inside"), ()) if reducer == "run_length" else ()
        kept = {name: value for name, value in kept.items() if name not in gone}
        merges_inside = reducer == "run_length" and higher.get("inside", kept.get("inside", "none")) != "none"
        replaced = set(INSTEAD_OF_KEEP) - ({"tokens_per_block"} if merges_inside else set())

        if higher.get("keep") is not None:
            kept = {name: value for name, value in kept.items() if name not in replaced}
        if any(name in higher for name in replaced):
            kept.pop("keep", None)
            kept.pop("train_keep", None)
            kept.pop("kept_by", None)

        return kept
