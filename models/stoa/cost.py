"""Multiply-accumulates of encoding one clip, part by part, from sizes alone.

One multiply-accumulate counts as one, a LayerNorm as five per element; softmax, activations, RoIAlign, gathers and sums
are not counted. Every box is taken to be real.
"""

from typing import NamedTuple

from configs.aggregation import AggregationConfig
from configs.frame_merging import GroupStep
from configs.model import VideoConfig
from configs.models.stoa import StoaConfig
from models.parts.cost import Cost
from models.stoa.sizes import StoaSizes, sizes_of

MACS_PER_NORM_ELEMENT = 5
CHANNELS = 3


class ClipCost(NamedTuple):
    """Multiply-accumulates of a clip: CLIP's tower, object tokens, trajectories, and actions."""

    tower: int
    objects: int
    trajectories: int
    actions: int

    @property
    def gmacs(self) -> float:
        """Of the whole clip, in billions."""
        return round(sum(self) / 1e9, 3)


def count(model: StoaConfig, video: VideoConfig, aggregation: AggregationConfig) -> Cost:
    """The cost of encoding one video of the configured size; what is left are the tokens of its memory."""
    model.check(video, aggregation)
    sizes = sizes_of(model, video, aggregation)
    tokens = sizes.num_frames
    tokens += sizes.num_trajectories if sizes.objects == "fusion" else 0
    tokens += sizes.num_actions if sizes.actions else 0
    gmacs = clip_cost(sizes).gmacs
    return Cost(gmacs, gmacs, sizes.num_frames, None, tokens)


def clip_cost(sizes: StoaSizes) -> ClipCost:
    """The cost of one clip, by parts."""
    return ClipCost(_tower(sizes), _objects(sizes), _trajectories(sizes), _actions(sizes))


def block(queries: int, seen: int, width: int) -> int:
    """A block whose `queries` read what is `seen`; these are the same tokens where the numbers are equal."""
    tokens = seen if queries == seen else seen + queries
    norms = MACS_PER_NORM_ELEMENT * width * (tokens + queries)
    attention = 2 * queries * width**2 + 2 * seen * width**2 + 2 * queries * seen * width
    return norms + attention + 8 * queries * width**2


def _tower(sizes: StoaSizes) -> int:
    width, frames, patches = sizes.vision_width, sizes.num_frames, sizes.image_tower.grid**2
    macs = frames * patches * CHANNELS * sizes.patch_size**2 * width
    macs += MACS_PER_NORM_ELEMENT * width * frames * (1 + patches)
    schedule = sizes.group_steps(frames, patches)
    if schedule is not None:
        macs += sum(_grouped_block(sizes, index, step) for index, step in enumerate(schedule))
        return macs + frames * width * (MACS_PER_NORM_ELEMENT + sizes.embed_dim)

    for index in range(sizes.vision_depth):
        beside = sizes.objects_per_frame if sizes.objects == "attention" and index in sizes.object_blocks else 0
        tokens = 1 + patches + beside
        if index < sizes.vision_depth - sizes.joint_depth:
            macs += frames * block(tokens, tokens, width)
        else:
            # Of the last block the class tokens alone.
            queries = frames if index == sizes.vision_depth - 1 else frames * tokens
            macs += block(queries, frames * tokens, width)
    return macs + frames * width * (MACS_PER_NORM_ELEMENT + sizes.embed_dim)


def _grouped_block(sizes: StoaSizes, index: int, step: GroupStep) -> int:
    """A block of the tower that merges, the similarities of patches included."""
    width = sizes.vision_width
    beside = 0
    if sizes.objects == "attention" and index in sizes.object_blocks:
        beside = sizes.objects_per_frame * step.class_tokens
    seen = step.seen + beside

    macs = 0
    if step.across:
        macs += _matching(step.seen - step.class_tokens + step.across, width)
    if index == sizes.vision_depth - 1:
        return step.groups * (macs + block(step.class_tokens, seen, width))

    # Objects are keys and values alone: see `block`, whose MLP they do not enter.
    tokens = step.class_tokens + step.patches
    macs += MACS_PER_NORM_ELEMENT * width * (seen + tokens) + 3 * seen * width**2 + step.seen * width**2
    macs += 2 * step.seen * seen * width + 8 * tokens * width**2
    if step.within:
        macs += _matching(step.patches + step.within, width // sizes.vision_heads)
    return step.groups * macs


def _matching(patches: int, compared: int) -> int:
    """Each patch of one set with each of the other."""
    return (patches // 2) * -(-patches // 2) * compared


def _objects(sizes: StoaSizes) -> int:
    if sizes.objects == "none":
        return 0
    width, half, patches = sizes.vision_width, sizes.vision_width // 2, sizes.image_tower.grid**2
    frames, boxes = sizes.num_frames, sizes.num_frames * sizes.objects_per_frame
    shown = frames * patches * width * half + boxes * patches * half * width
    places = boxes * (4 * half + half * width)
    return len(sizes.object_blocks) * (shown + places)


def _trajectories(sizes: StoaSizes) -> int:
    if sizes.objects != "fusion":
        return 0
    width, classes = sizes.vision_width, sizes.num_trajectories
    read = block(classes, 1 + sizes.num_frames * sizes.objects_per_frame, width)
    return read + classes * width * (MACS_PER_NORM_ELEMENT + sizes.embed_dim)


def _actions(sizes: StoaSizes) -> int:
    if not sizes.actions:
        return 0
    width, actions, frames = sizes.vision_width, sizes.num_actions, sizes.num_frames
    seen = sizes.image_tower.grid**2 + (sizes.objects_per_frame if sizes.objects != "none" else 0)
    found = 2 * actions * frames * seen * width
    over_time = block(1 + frames, 1 + frames, width) + block(1, 1 + frames, width)
    return found + actions * (over_time + width * (MACS_PER_NORM_ELEMENT + sizes.embed_dim))
