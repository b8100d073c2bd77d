"""What the encoder tells of each block: the very plans, keys that lead to them, and origins after each."""

import pytest
import torch

from models.parts.aggregation import TokenAggregator
from models.parts.attention import Attended
from tests.models.parts.test_origins import record_plans
from tests.models.tiny import DEPTH, FRAMES, NUM_PATCHES, PAIRS, clips, encoder

MERGING = [name for name in PAIRS if "none" not in name]


@pytest.mark.parametrize("pair", MERGING)
def test_steps_hold_every_plan_in_order_and_lead_to_the_final_origins(
    pair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, video = encoder(*PAIRS[pair]), clips(2)
    plain = model(video, return_origins=True)
    plans = record_plans(model, monkeypatch)
    steps: list = []
    encoded = model(video, return_origins=True, steps=steps)
    assert torch.equal(encoded.tokens, plain.tokens) and torch.equal(encoded.origins, plain.origins)
    assert len(steps) == DEPTH
    told = [step for of_block in steps for step in of_block]
    assert [step.axis for step in told] == [axis for axis, _ in plans]
    assert all(step.plan is plan for step, (_, plan) in zip(told, plans, strict=True))
    last = told[-1].origins
    assert torch.equal(torch.where(last < 0, -1, last + 1), encoded.origins)


@pytest.mark.parametrize("pair", MERGING)
def test_origins_of_each_step_count_what_is_left(pair: str) -> None:
    steps: list = []
    encoder(*PAIRS[pair])(clips(2), return_origins=True, steps=steps)
    frames, patches, left = FRAMES, NUM_PATCHES, FRAMES * NUM_PATCHES
    for step in (step for of_block in steps for step in of_block):
        leaving = step.plan.source.shape[-1]
        if step.axis == "time":
            frames -= leaving
        elif step.axis == "space":
            patches -= leaving
        left = left - leaving if step.axis == "joint" else frames * patches
        for origins in step.origins:
            assert set(origins[origins >= 0].tolist()) == set(range(left))


@pytest.mark.parametrize("pair", [name for name in MERGING if "geometry" in name or "tome" in name])
def test_the_key_of_a_step_leads_to_its_plan(pair: str) -> None:
    attention, aggregation = PAIRS[pair]
    steps: list = []
    encoder(attention, aggregation)(clips(2), return_origins=True, steps=steps)
    for step in (step for of_block in steps for step in of_block):
        r = step.plan.source.shape[-1]
        alone = TokenAggregator(aggregation.reducer, step.axis, r, aggregation.frame_match, aggregation.order)
        plan = alone.plan(Attended(step.compared, step.compared, None), step.compared.shape[-2])
        assert plan is not None and all(map(torch.equal, plan[:3], step.plan[:3]))
        assert plan.weight is None and step.plan.weight is None


def test_blocks_that_merge_nothing_have_no_steps() -> None:
    steps: list = []
    encoder(*PAIRS["divided-none"])(clips(1), return_origins=True, steps=steps)
    assert steps == [[]] * DEPTH


def test_steps_are_not_for_training() -> None:
    with pytest.raises(AssertionError, match="steps"):
        encoder(*PAIRS["divided-geometry"]).train()(clips(1), return_origins=True, steps=[])
