"""TempMe in the video tower: against a loop over single tokens, and against the tower that merges nothing."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from configs.aggregation import AggregationConfig
from configs.frame_merging import steps_of
from configs.model import VideoConfig
from configs.models.base import ModelConfig
from configs.models.stoa import StoaConfig
from configs.models.testa import TestaConfig
from configs.models.tvts import TvtsConfig
from configs.models.umt import UMTConfig
from inference.pictures.trace import trace_video
from models.stoa.cost import MACS_PER_NORM_ELEMENT, clip_cost
from models.stoa.model import StoaModel
from models.stoa.sizes import StoaSizes
from models.stoa.task_model import TaskModel
from models.stoa.video_tower import TowerOutput
from tests.models.stoa.tiny import SIZES, objects, randomise, tiny_model

DEPTH, FRAMES, PATCHES = 5, 4, 16
SMALL = {"vision_depth": DEPTH, "num_frames": FRAMES, "joint_depth": 2, "fusion_positions": 40}
PUBLISHED = AggregationConfig(
    reducer="tempme", patches_per_block=(2, 3, 0, 0, 0), join_blocks=(2, 3), join_frames=(2, 2)
)
"""Frames become pairs before block 2, and one clip before block 3, the first joint one."""
AT_ONCE = AggregationConfig(reducer="tempme", keep=0.3)
NOTHING = AggregationConfig(reducer="tempme", across_frames=0.0, within_groups=0.0)
FORMS: list[dict[str, Any]] = [
    {"objects": "none", "actions": False},
    {"objects": "fusion", "actions": True, "object_layer": 0},
    {"objects": "fusion", "actions": True, "object_layer": 4},
    {"objects": "attention", "actions": True, "object_layer": -3},
    {"objects": "attention", "actions": False, "object_layer": 0},
]
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
every_setting = pytest.mark.parametrize("settings", [PUBLISHED, AT_ONCE], ids=["published", "at_once"])


def model_of(settings: AggregationConfig, **form: object) -> StoaModel:
    return tiny_model(**{**SMALL, **form}, aggregation=settings)


def clips(num_clips: int) -> Tensor:
    return torch.randn(num_clips, FRAMES, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def boxes_of(model: StoaModel, counts: list[int]) -> Any:
    """Objects on all four frames: those of three frames, and the first again."""
    if model.sizes.objects == "none":
        return None
    found = objects(counts)
    again = [torch.cat([part, part[:, :1]], dim=1) for part in found[:2]]
    return type(found)(*again, found.trajectory_ids)


def encode(model: StoaModel, num_clips: int) -> TowerOutput:
    return model.visual.encode_clips(clips(num_clips), boxes_of(model, [2, 0, 3][:num_clips]))


class PlainGroup:
    """Tokens of a group one by one: a feature, a size, and the cells (frame, patch) or the frame's class token."""

    def __init__(self, features: list[Tensor], sizes: list[float], cells: list[set[Any]]) -> None:
        self.features, self.sizes, self.cells = features, sizes, cells


def merged_by_hand(group: PlainGroup, compared: list[Tensor], num_class: int, leaving: int) -> PlainGroup:
    if not leaving:
        return group
    unit = [vector.double() / vector.double().norm() for vector in compared]
    even = [place for place in range(num_class, len(unit)) if place % 2 == 0]
    odd = [place for place in range(num_class, len(unit)) if place % 2 == 1]
    best = {a: max(odd, key=lambda b: (float(unit[a] @ unit[b]), -b)) for a in even}
    left = sorted(even, key=lambda a: (-float(unit[a] @ unit[best[a]]), a))[:leaving]
    order = [*range(num_class), *(a for a in even if a not in left), *odd]
    members = [[kept, *(a for a in left if best[a] == kept)] for kept in order]
    sizes = [sum(group.sizes[place] for place in one) for one in members]
    features = [
        sum(group.features[place] * group.sizes[place] for place in one) / size
        for one, size in zip(members, sizes, strict=True)
    ]
    return PlainGroup(features, sizes, [set().union(*(group.cells[place] for place in one)) for one in members])


def plain(model: StoaModel, clip: Tensor, settings: AggregationConfig) -> tuple[Tensor, list[PlainGroup]]:
    """The class tokens' features (T, E) of one clip without objects, and all groups at the end."""
    tower = model.visual
    tokens = tower.embed(clip)
    groups = [
        PlainGroup(list(frame), [1.0] * len(frame), [{index}, *({(index, place)} for place in range(PATCHES))])
        for index, frame in enumerate(tokens)
    ]
    num_class = 1
    for block, step in zip(tower.transformer.resblocks, steps_of(settings, FRAMES, PATCHES, DEPTH, 3), strict=True):
        joined = []
        for first in range(0, len(groups), step.joined):
            parts = groups[first : first + step.joined]
            rows = [
                [*(row for part in parts for row in getattr(part, name)[:num_class]),
                 *(row for part in parts for row in getattr(part, name)[num_class:])]
                for name in ("features", "sizes", "cells")
            ]  # fmt: skip
            joined.append(PlainGroup(*rows))
        num_class *= step.joined
        groups = []
        for group in joined:
            group = merged_by_hand(group, group.features, num_class, step.across)
            stacked, size = torch.stack(group.features), torch.tensor(group.sizes)
            projected = F.linear(block.ln_1(stacked), block.attn.in_proj_weight, block.attn.in_proj_bias)
            query, key, value = (part.unflatten(-1, (2, -1)).transpose(0, 1) for part in projected.chunk(3, dim=-1))
            scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + size.log()
            context = (scores.softmax(dim=-1) @ value).transpose(0, 1).flatten(1)
            group.features = list(stacked + block.attn.out_proj(context))
            group = merged_by_hand(group, list(key.mean(dim=0)), num_class, step.within)
            stacked = torch.stack(group.features)
            group.features = list(stacked + block.mlp(block.ln_2(stacked)))
            groups.append(group)
    (group,) = groups
    return tower.ln_post(torch.stack(group.features[:num_class])) @ tower.proj, groups


@torch.no_grad()
@every_setting
def test_it_equals_a_loop_over_tokens(settings: AggregationConfig) -> None:
    model = model_of(settings, objects="none", actions=False)
    found = encode(model, 2)
    traced = model.visual.trace_clips(clips(2))
    for clip in range(2):
        frames, (group,) = plain(model, clips(2)[clip], settings)
        torch.testing.assert_close(found.frames[clip], frames, atol=1e-5, rtol=1e-5)

        # Where each patch went, and what is left of all.
        assert traced.size[clip].tolist() == group.sizes
        for token, cells in enumerate(group.cells):
            places = (traced.origins[clip] == token).nonzero().tolist()
            assert {tuple(place) for place in places} == {cell for cell in cells if isinstance(cell, tuple)}
        tokens = model.visual.ln_post(torch.stack(group.features)) @ model.visual.proj
        torch.testing.assert_close(traced.tokens[clip], tokens, atol=1e-5, rtol=1e-5)


@every_form
def test_where_nothing_merges_it_is_the_tower_without(form: dict[str, Any]) -> None:
    """Outputs and gradients: class tokens first, groups and sizes of 1 change nothing, for objects neither."""
    outputs = []
    for settings in (NOTHING, AggregationConfig()):
        model = model_of(settings, **form)
        encoded = encode(model, 3)
        parts = [encoded.frames, encoded.tap, *([] if encoded.objects is None else [encoded.objects])]
        if encoded.objects is not None:
            parts[2] = parts[2] * ~boxes_of(model, [2, 0, 3]).padding.unsqueeze(-1)
        (parts[0].square().sum() + sum(part.sum() for part in parts[2:])).backward()
        gradients = [p.grad for p in model.visual.parameters() if p.grad is not None]
        outputs.append([*parts, *gradients])
    for own, other in zip(*outputs, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)


@every_form
@every_setting
def test_each_clip_alone_recomputation_and_gradients(form: dict[str, Any], settings: AggregationConfig) -> None:
    model = model_of(settings, **form)
    given = boxes_of(model, [2, 0, 3])
    together = model.encode_video(clips(3), given)
    for index in range(3):
        own = None if given is None else type(given)(*(part[index : index + 1] for part in given))
        alone = model.encode_video(clips(3)[index : index + 1], own)
        torch.testing.assert_close(alone.embedding, together.embedding[index : index + 1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.tokens, together.tokens[index : index + 1], atol=1e-5, rtol=1e-5)

    gradients = []
    for recompute in (False, True):
        model.train().zero_grad()
        model.sizes = replace(model.sizes, dropout=0.0)
        model.visual.transformer.recompute = recompute
        model.encode_video(clips(3), given).tokens.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.visual.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


@torch.no_grad()
def test_boxes_are_read_from_the_tokens_that_hold_their_patches() -> None:
    """With all patches of a frame alike, merging them changes no box: each patch is put back in its place."""
    tower = model_of(AT_ONCE, objects="fusion", object_layer=3).visual
    given = boxes_of(model_of(AT_ONCE, objects="fusion"), [3])
    seen: list[Tensor] = []
    tower.object_encoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    output = tower.encode_clips(clips(1), given)
    assert seen[0].shape == (1, FRAMES, PATCHES, 16) and output.tap.shape == (1, FRAMES, 1 + PATCHES, 16)
    # Fewer different tokens than places: some patches of a frame are one token.
    assert len(seen[0][0, 0].unique(dim=0)) < PATCHES
    assert len(output.tap[0, :, 1:].flatten(0, 1).unique(dim=0)) < FRAMES * PATCHES


@every_form
@every_setting
@torch.no_grad()
def test_the_cost_is_that_of_what_is_executed(form: dict[str, Any], settings: AggregationConfig) -> None:
    model = model_of(settings, **form).requires_grad_(False)
    norms = {torch.ops.aten.native_layer_norm: lambda shape, *_, **__: 2 * MACS_PER_NORM_ELEMENT * shape.numel()}
    given = boxes_of(model, [3])
    with FlopCounterMode(display=False, custom_mapping=norms) as counter:
        model.encode_video(clips(1), given)
    assert sum(clip_cost(model.sizes)) == counter.get_total_flops() // 2
    nothing = replace(model.sizes, aggregation=AggregationConfig())
    assert clip_cost(model.sizes).tower < clip_cost(nothing).tower


@torch.no_grad()
def test_bfloat16_is_near() -> None:
    model = model_of(PUBLISHED, objects="none", actions=False)
    expected = model.encode_video(clips(2)).embedding
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.encode_video(clips(2)).embedding
    assert torch.isfinite(found).all() and F.cosine_similarity(found, expected).min() > 0.9


@torch.no_grad()
def test_pictures_show_what_merged() -> None:
    torch.manual_seed(0)
    model = TaskModel(StoaSizes(**{**SIZES, **SMALL, "objects": "fusion", "aggregation": PUBLISHED})).eval()
    randomise(model)
    trace = trace_video(model, torch.randint(0, 256, (FRAMES, 3, 16, 16), dtype=torch.uint8))
    steps = steps_of(PUBLISHED, FRAMES, PATCHES, DEPTH, 3)
    assert [len(set(held.flatten().tolist())) for held in trace.blocks] == [s.groups * s.patches for s in steps]
    assert [found.axis for found in trace.similarities] == ["space", "space", "joint", "joint", "joint", "joint"]
    assert not trace.merges_frames and trace.tokens.shape == (FRAMES + steps[-1].patches, 8)
    assert trace.origins.min() == FRAMES and trace.origins.max() == len(trace.tokens) - 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"join_blocks": (3,), "join_frames": (4,), "keep": 0.1}, "aggregation.keep: block 3 is to lose"),
        ({"join_blocks": (4,), "join_frames": (4,)}, "join_blocks: 4 is not from 0 to 3"),
        ({"join_blocks": (2, 3), "join_frames": (2, 3)}, "join_frames: .* join 6 frames, not 4"),
        ({"join_blocks": (2,), "join_frames": (2, 2)}, "join_frames: .* give a number for each block"),
        ({"join_blocks": (3, 2), "join_frames": (2, 2)}, "join_blocks: blocks have to ascend"),
        ({"patches_per_block": (1, 1, 1, 1, 0)}, "frames are joined before block 3"),
        ({"patches_per_block": 7}, "patches_per_block: block 1 is to lose 7 of the 9 patches"),
        ({"across_frames": 0.7}, "across_frames: 0.7 is not from 0 to 0.5"),
        ({"keep": 0.5, "across_frames": 0.2}, "across_frames: has no effect beside keep"),
        ({"proportional_attention": True}, "proportional_attention: leave it out; 'tempme' always has it"),
        ({"weighted_pooling": True}, "weighted_pooling: has no effect here"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    model = StoaConfig(depth=DEPTH, joint_depth=2)
    with pytest.raises(ValueError, match=message):
        model.check(VideoConfig(num_frames=FRAMES, image_size=64), AggregationConfig(reducer="tempme", **settings))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (TestaConfig(attention="divided"), "every block looks over time"),
        (TestaConfig(attention="joint"), "reducer 'tome' is what is left"),
        (UMTConfig(pooling="all"), "reducer 'tome' is what is left"),
        (TvtsConfig(), "every block looks over time"),
    ],
)
def test_other_encoders_say_why_they_cannot(model: ModelConfig, reason: str) -> None:
    with pytest.raises(ValueError, match=f"aggregation.reducer: 'tempme' does not go with .*{reason}"):
        model.check(VideoConfig(num_frames=FRAMES, image_size=64), AT_ONCE)


def test_keep_is_met_and_a_price_is_one_knob() -> None:
    model, video = StoaConfig(depth=DEPTH, joint_depth=2), VideoConfig(num_frames=FRAMES, image_size=64)
    for share in (0.3, 0.5, 0.77, 1.0):
        for joins in ({}, {"join_blocks": (1, 3), "join_frames": (2, 2)}):
            settings = AggregationConfig(reducer="tempme", keep=share, **joins)
            last = steps_of(settings, FRAMES, PATCHES, DEPTH, 3)[-1]
            assert (last.groups, last.class_tokens, last.patches) == (1, FRAMES, round(share * FRAMES * PATCHES))
    reduced = model.at_price(AggregationConfig(reducer="tempme"), video, ("patches",), 16)
    assert reduced.keep == 0.75
    model.check(video, reduced)
