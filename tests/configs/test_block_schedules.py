"""How many frames, patches and tokens leave in each block, from the settings of aggregation."""

from typing import Any

import pytest

from configs.models.testa import block_schedules
from configs.schema import AggregationConfig, TestaConfig, VideoConfig


def schedules(model: TestaConfig, num_frames: int = 32, **aggregation: Any) -> dict[str, tuple[int, ...]]:
    """What leaves in each block of `model` on clips of 224 pixels."""
    config = AggregationConfig(**aggregation)
    model.check(VideoConfig(num_frames=num_frames), config)
    return block_schedules(model, VideoConfig(num_frames=num_frames), config)


def test_amounts_become_schedules_of_the_attentions_axes() -> None:
    nothing = (0,) * 12
    divided = schedules(TestaConfig(), reducer="geometry", frames_per_block=1, patches_per_block=12)
    assert divided == {"frames": (1,) * 12, "patches": (12,) * 12, "tokens": nothing}
    joint = schedules(TestaConfig(attention="joint"), reducer="tome", tokens_per_block=197)
    assert joint == {"frames": nothing, "patches": nothing, "tokens": (197,) * 12}
    assert set(schedules(TestaConfig(attention="space")).values()) == {nothing}


def test_saliency_takes_shares_and_short_lists() -> None:
    joint = schedules(TestaConfig(attention="joint"), 12, reducer="saliency", tokens_per_block=(600, 0, 0.25))
    assert joint["tokens"] == (600, 0, 438, *[0] * 9)
    divided = schedules(TestaConfig(), reducer="saliency", patches_per_block=(50, 20))
    assert divided == {"frames": (0,) * 12, "patches": (50, 20, *[0] * 10), "tokens": (0,) * 12}
    # Frames never merge, so patches alone keep the share.
    assert sum(schedules(TestaConfig(), reducer="saliency", keep=0.25)["patches"]) == 196 - 49


@pytest.mark.parametrize("reducer", ["geometry", "importance", "prune"])
def test_keep_leaves_its_share_of_all_patch_tokens(reducer: str) -> None:
    amounts = schedules(TestaConfig(), reducer=reducer, keep=0.25)
    frames, patches = 32 - sum(amounts["frames"]), 196 - sum(amounts["patches"])
    assert (frames, patches) == (16, 98)
    still = schedules(TestaConfig(), num_frames=1, reducer=reducer, keep=0.25)  # an image: space alone
    assert (sum(still["frames"]), 196 - sum(still["patches"])) == (0, 49)
    joint = schedules(TestaConfig(attention="joint"), reducer="tome", keep=0.25)
    assert 32 * 196 - sum(joint["tokens"]) == 32 * 49


def test_what_cannot_merge_is_refused() -> None:
    with pytest.raises(ValueError, match="^model.temporal_scaling: has one factor a frame"):
        schedules(TestaConfig(temporal_scaling=True), reducer="geometry", frames_per_block=1)
    schedules(TestaConfig(temporal_scaling=True), reducer="geometry", patches_per_block=1)
    with pytest.raises(ValueError, match="^aggregation.keep: one frame of one patch has nothing to merge"):
        schedules(TestaConfig(patch_size=224), num_frames=1, reducer="geometry", keep=0.5)
    with pytest.raises(ValueError, match="^aggregation.reducer: 'geometry' does not go with joint"):
        schedules(TestaConfig(attention="joint"), reducer="geometry")
