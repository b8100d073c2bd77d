"""Schedules of divided attention by hand, and what is refused."""

import pytest

from configs.aggregation import AggregationConfig
from configs.divided import divided_schedules


@pytest.mark.parametrize(
    ("settings", "frames", "patches"),
    [
        ({}, (0, 0, 0), (0, 0, 0)),
        ({"reducer": "geometry", "frames_per_block": 1, "patches_per_block": 3}, (1, 1, 1), (3, 3, 3)),
        ({"reducer": "prune", "frames_per_block": (2, 0, 1), "patches_per_block": (0, 8, 2)}, (2, 0, 1), (0, 8, 2)),
        # The root of 0.4 of 8 frames is 5, of 25 patches 16.
        ({"reducer": "geometry", "keep": 0.4}, (1, 1, 1), (3, 3, 3)),
        # Saliency leaves frames alone, so 12 of 25 patches stay.
        ({"reducer": "saliency", "keep": 0.5}, (0, 0, 0), (4, 4, 5)),
        ({"reducer": "saliency", "patches_per_block": (4, 0, 4)}, (0, 0, 0), (4, 0, 4)),
    ],
)
def test_schedules_by_hand(settings: dict[str, object], frames: tuple[int, ...], patches: tuple[int, ...]) -> None:
    found = divided_schedules(AggregationConfig(**settings), depth=3, num_frames=8, num_patches=25)
    assert found == {"frames": frames, "patches": patches}


@pytest.mark.parametrize(
    ("settings", "frames", "message"),
    [
        ({"reducer": "tome"}, 8, "aggregation.reducer: 'tome' does not go with divided attention"),
        ({"reducer": "saliency", "tokens_per_block": 1}, 8, "aggregation.tokens_per_block: has no effect"),
        ({"reducer": "geometry", "frames_per_block": 4}, 8, "aggregation.frames_per_block: block 0 is to lose 4 of"),
        ({"reducer": "geometry", "patches_per_block": (1, 1)}, 8, "aggregation.patches_per_block: 2 numbers for 3"),
    ],
)
def test_what_has_no_place_is_refused(settings: dict[str, object], frames: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        divided_schedules(AggregationConfig(**settings), 3, frames, 25)
