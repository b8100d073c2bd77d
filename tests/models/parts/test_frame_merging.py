"""TempMe's joining and merging of frames: golden numbers of the reference, and a loop over single tokens."""

import pytest
import torch
from torch import Tensor

from configs.frame_merging import group_steps
from models.parts.frame_merging import Groups, merged_across
from models.parts.merging import unmerge

JOINS = [1] * 8 + [2, 2, 3, 1]


def wave(num_tokens: int) -> Tensor:
    token, channel = torch.arange(num_tokens).double()[:, None], torch.arange(4).double()
    return torch.sin(0.9 * token + 0.7 * channel + 0.3 * token * channel)


def one_group(tokens: Tensor, size: Tensor, num_class_tokens: int) -> Groups:
    patches, sizes = tokens[num_class_tokens:], size[num_class_tokens:]
    origins = torch.arange(len(patches))[None, None]
    return Groups(tokens[None, None, :num_class_tokens], patches[None, None], sizes[None, None], origins)


def merged_by_hand(tokens: Tensor, size: Tensor, compared: Tensor, leaving: int, num_class: int) -> list[list[int]]:
    """Places that become one token, in output order; places count class tokens, which merge with nothing."""
    even = [place for place in range(num_class, len(tokens)) if place % 2 == 0]
    odd = [place for place in range(num_class, len(tokens)) if place % 2 == 1]
    unit = compared / compared.norm(dim=-1, keepdim=True)
    best = {a: max(odd, key=lambda b: (float(unit[a] @ unit[b]), -b)) for a in even}
    left = sorted(even, key=lambda a: (-float(unit[a] @ unit[best[a]]), a))[:leaving]
    stay = [*range(num_class), *(a for a in even if a not in left), *odd]
    return [[kept, *(a for a in left if best[a] == kept)] for kept in stay]


def means_of(tokens: Tensor, size: Tensor, places: list[list[int]]) -> tuple[Tensor, Tensor]:
    sizes = torch.stack([size[group].sum() for group in places])
    return torch.stack([(tokens[group] * size[group, None]).sum(dim=0) for group in places]) / sizes[:, None], sizes


@pytest.mark.parametrize(
    ("num_class", "sizes", "rows"),
    [
        (2, [2, 1, 3.5, 2.5], {4: [-0.748240, -0.071032, 0.671458, -0.514978]}),
        (1, [1.5, 3.5, 1, 2, 2.5], {2: [0.892196, 0.429318, -0.441237, -0.609434]}),
    ],
)
def test_golden_merge_in_a_group(num_class: int, sizes: list[float], rows: dict[int, list[float]]) -> None:
    tokens, size = wave(8), 1 + 0.5 * (torch.arange(8) % 3).double()
    merged = one_group(tokens, size, num_class).merged(tokens[None, None, num_class:], 2)
    assert merged.size[0, 0].tolist() == sizes
    found = torch.cat([merged.cls, merged.patches], dim=2)[0, 0]
    rows = rows | {5: [-0.299017, 0.591036, -0.702013, 0.638438]}
    for row, expected in rows.items():
        torch.testing.assert_close(found[row], torch.tensor(expected).double(), atol=1e-6, rtol=0)


def test_golden_block_that_joins_two_frames() -> None:
    groups = Groups.of_frames(wave(10).view(1, 2, 5, 4), return_origins=True)
    groups = groups._replace(size=groups.size.double())
    position = 0.1 * torch.tensor([[1], [2]]) * torch.arange(1, 5).double()

    joined = merged_across(groups, 2, 3, position)
    expected = [
        [0.1, 0.844218, 1.285450, 1.263209],
        [-0.777530, 0.804850, 1.101021, -0.194553],
        [0.883327, 1.146300, 0.539249, -0.287766],
        [1.073848, 0.241581, -0.651602, -0.150686],
        [-0.342520, -0.505540, 1.198708, 0.524454],
        [0.057143, 0.467291, -0.106613, 1.370407],
        [1.081779, -0.421569, 1.331629, 0.182953],
    ]
    found = torch.cat([joined.cls, joined.patches], dim=2)[0, 0]
    torch.testing.assert_close(found, torch.tensor(expected).double(), atol=1e-6, rtol=0)
    assert joined.size.tolist() == [[[1, 1, 1, 3, 2]]]
    # Regrouped places 2, 3, 5, then 4 with 6 and 7, then 8 with 9: cells of both frames share tokens.
    assert joined.origins.tolist() == [[[0, 1, 3, 2], [3, 3, 4, 4]]]

    without = merged_across(groups, 2, 3)
    row = torch.tensor([-0.109524, 0.133958, -0.606613, 0.703740]).double()
    torch.testing.assert_close(without.patches[0, 0, 3], row, atol=1e-6, rtol=0)

    place, channel = torch.arange(2, 7).double()[:, None], torch.arange(4).double()
    keys = torch.cos(0.8 * place + 0.5 * channel + 0.2 * place * channel)
    inside = joined.merged(keys[None, None], 2)
    assert inside.size.tolist() == [[[1, 2, 5]]]
    last = [[0.365664, -0.131980, 0.273553, 0.186884], [0.466997, 0.111747, 0.468683, 0.895425]]
    torch.testing.assert_close(inside.patches[0, 0, 1:], torch.tensor(last).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("patches", "tokens", "seen"),
    [
        (49, [*range(48, 32, -2), 44, 56, 107, 97], [*range(50, 34, -2), 48, 62, 118, 107]),
        (196, [*range(195, 179, -2), 229, 289, 547, 493], [*range(197, 181, -2), 254, 321, 607, 547]),
    ],
)
def test_the_schedule_is_the_published_one(patches: int, tokens: list[int], seen: list[int]) -> None:
    steps = group_steps(12, patches, [2] * 12, JOINS, 0.30, 0.10)
    assert [step.groups for step in steps] == [12] * 8 + [6, 3, 1, 1]
    assert [step.class_tokens for step in steps] == [1] * 8 + [2, 4, 12, 12]
    assert [step.class_tokens + step.patches for step in steps] == tokens
    assert [step.seen for step in steps] == seen


def test_a_schedule_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="join_frames: block 1 is to join 3 of 4 groups"):
        group_steps(8, 9, [0, 0], [2, 3], 0.3, 0.1)
    with pytest.raises(ValueError, match="patches_per_block: block 1 is to lose 3 of the 5 patches"):
        group_steps(2, 8, [3, 3, 0], [1, 1, 2], 0.3, 0.1)


@pytest.mark.parametrize(("count", "leaving"), [(1, 1), (1, 2), (2, 3), (3, 7)])
def test_batches_equal_a_loop_over_single_tokens(count: int, leaving: int) -> None:
    frames = torch.randn(2, 6, 6, 4, dtype=torch.float64)
    groups = Groups.of_frames(frames, return_origins=True)
    groups = groups._replace(size=torch.randint(1, 4, groups.size.shape).double())
    found = merged_across(groups, count, leaving)

    sizes = torch.cat([torch.ones(2, 6, 1), groups.size], dim=2)
    for clip in range(2):
        for group in range(6 // count):
            # Class tokens first, frame by frame, then the patches.
            of = slice(group * count, (group + 1) * count)
            tokens = torch.cat([frames[clip, of, 0], frames[clip, of, 1:].flatten(0, 1)])
            size = torch.cat([sizes[clip, of, 0], sizes[clip, of, 1:].flatten()])
            places = merged_by_hand(tokens, size, tokens, leaving, count)
            expected, expected_size = means_of(tokens, size, places)
            assert torch.equal(found.cls[clip, group], expected[:count])
            torch.testing.assert_close(found.patches[clip, group], expected[count:])
            assert torch.equal(found.size[clip, group], expected_size[count:])

            # Where each of the group's cells went.
            origins = found.origins[clip, of].flatten().tolist()
            for slot, members in enumerate(places[count:]):
                flat = group * found.size.shape[-1] + slot
                assert [cell for cell, token in enumerate(origins) if token == flat] == sorted(
                    m - count for m in members
                )


def test_compiled_equals_eager_in_one_graph() -> None:
    groups = Groups.of_frames(torch.randn(2, 6, 6, 4), return_origins=True)
    compiled = torch.compile(merged_across, backend="aot_eager", fullgraph=True)
    for own, other in zip(compiled(groups, 3, 5), merged_across(groups, 3, 5), strict=True):
        torch.testing.assert_close(own, other)


def test_gradients_are_those_of_weighted_means() -> None:
    frames = torch.randn(1, 2, 6, 4, dtype=torch.float64, requires_grad=True)
    groups = Groups.of_frames(frames, return_origins=True)
    groups = groups._replace(size=groups.size.double())
    merged = merged_across(groups, 2, 4)
    direction = torch.randn_like(merged.patches)
    (gradient,) = torch.autograd.grad(merged.patches, frames, direction)

    # Every cell has its share of the token that holds it.
    share = unmerge(direction.flatten(1, 2) / merged.size.flatten(1).unsqueeze(-1), merged.origins)
    torch.testing.assert_close(gradient[:, :, 1:], share)
    assert (gradient[:, :, 0] == 0).all()
