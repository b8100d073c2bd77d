"""The counted cost is that of the operations that a real clip of full boxes executes."""

import itertools
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.stoa.cost import MACS_PER_NORM_ELEMENT, clip_cost
from models.stoa.sizes import StoaSizes
from tests.models.stoa.tiny import frames, objects, tiny_model

FORMS: list[dict[str, Any]] = [
    *({"objects": kind, "actions": actions} for kind, actions in itertools.product(("none", "fusion"), (False, True))),
    {"objects": "attention", "actions": True},
    {"objects": "attention", "actions": False, "object_layer": -2},
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
@torch.no_grad()
def test_it_equals_what_is_executed(form: dict[str, Any]) -> None:
    model = tiny_model(**form).requires_grad_(False)
    given = None if form["objects"] == "none" else objects([3])
    norms = {torch.ops.aten.native_layer_norm: lambda shape, *_, **__: 2 * MACS_PER_NORM_ELEMENT * shape.numel()}
    with FlopCounterMode(display=False, custom_mapping=norms) as counter:
        model.encode_video(frames(1), given)
    assert sum(clip_cost(model.sizes)) == counter.get_total_flops() // 2


def test_the_published_size() -> None:
    cost, plain = clip_cost(StoaSizes()), clip_cost(StoaSizes(objects="none", actions=False))
    # 12 frames of CLIP's ViT-B/16, 16.9 billion each; attention over 2364 tokens costs more, the last block less.
    assert plain.gmacs == pytest.approx(12 * 16.9, rel=0.05)
    # The first layer of the objects' MLP before RoIAlign, not after: 14 x 14 patches a frame, not of every box.
    assert cost.objects < 0.06 * cost.tower and cost.trajectories < 0.01 * cost.tower
