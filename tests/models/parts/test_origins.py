"""Where each original cell of a video ends up: against groups of cells carried along by hand."""

import pytest
import torch
from torch import Tensor

from configs.schema import AggregationConfig
from models.parts.aggregation import MergePlan, TokenAggregator, follow, merge, unmerge
from models.testa.video_encoder import VideoEncoder
from tests.models.tiny import FRAMES, NUM_PATCHES, PAIRS, clips, encoder

Cells = list[list[set[tuple[int, int]]]]  # of one clip: which (frame, patch) cells the token at [step][place] holds


def carried(cells: list[set], plan: MergePlan, row: tuple[int, ...]) -> list[set]:
    """One axis of groups of cells through a plan."""
    out = [set(cells[int(kept)]) for kept in plan.keep[row]]
    if plan.destination is not None:
        weights = [1.0] * plan.source.shape[-1] if plan.weight is None else plan.weight[row].tolist()
        moves = zip(plan.source[row].tolist(), plan.destination[row].tolist(), weights, strict=True)
        for source, destination, weight in moves:
            if weight > 0:
                out[destination] |= cells[source]
    return out


def record_plans(model: VideoEncoder, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, MergePlan]]:
    """The plans that the next forward makes, in order."""
    plans: list[tuple[str, MergePlan]] = []
    original = TokenAggregator.plan

    def recording(self: TokenAggregator, *arguments: object) -> MergePlan | None:
        plan = original(self, *arguments)
        if plan is not None:
            plans.append((self.axis, plan))
        return plan

    monkeypatch.setattr(TokenAggregator, "plan", recording)
    return plans


def held_by_hand(attention: str, plans: list[tuple[str, MergePlan]], clip: int) -> list[set[tuple[int, int]]]:
    """The cells each final token of one clip holds, in the order of the encoder's tokens."""
    frames, patches = range(FRAMES), range(NUM_PATCHES)
    if attention == "joint":
        flat = [{(frame, patch)} for patch in patches for frame in frames]
        for _, plan in plans:
            flat = carried(flat, plan, (clip,))
        return flat
    grid = [[{(frame, patch)} for patch in patches] for frame in frames]
    for axis, plan in plans:
        if axis == "time":
            columns = [carried(list(column), plan, (clip,)) for column in zip(*grid, strict=True)]
            grid = [list(row) for row in zip(*columns, strict=True)]
        else:
            grid = [carried(row, plan, (clip, step)) for step, row in enumerate(grid)]
    return [cells for row in grid for cells in row]


@pytest.mark.parametrize("pair", [name for name in PAIRS if "space" not in name])
def test_origins_equal_groups_carried_by_hand(pair: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attention, aggregation = PAIRS[pair]
    model = encoder(attention, aggregation)
    plans = record_plans(model, monkeypatch)
    encoded = model(clips(3), return_origins=True)
    assert encoded.origins.shape == (3, FRAMES, NUM_PATCHES)
    for clip in range(3):
        found: dict[int, set] = {}
        for frame in range(FRAMES):
            for patch in range(NUM_PATCHES):
                found.setdefault(int(encoded.origins[clip, frame, patch]), set()).add((frame, patch))
        dropped = found.pop(-1, set())
        expected = held_by_hand(attention, plans, clip)
        assert found == dict(enumerate(expected, start=1))  # token 0 is the class token
        drops = "prune" in pair or "saliency" in pair
        assert (dropped != set()) == drops
        assert [len(cells) for cells in expected] == encoded.size[clip, 1:].tolist() or drops


def test_pruning_leaves_size_1_and_accounts_for_what_it_dropped() -> None:
    encoded = encoder(*PAIRS["divided-prune"])(clips(2), return_origins=True)
    assert (encoded.size == 1).all()
    dropped = (encoded.origins < 0).flatten(1).sum(dim=1)
    assert (dropped + encoded.tokens.shape[1] - 1 == FRAMES * NUM_PATCHES).all()
    assert (dropped > 0).all()


def test_each_frame_has_its_own_class_token_in_space_only() -> None:
    origins = encoder("space")(clips(1), return_origins=True).origins
    expected = [[frame * (1 + NUM_PATCHES) + 1 + patch for patch in range(NUM_PATCHES)] for frame in range(FRAMES)]
    assert origins[0].tolist() == expected


def test_origins_find_the_token_that_a_cell_went_into() -> None:
    """With equal weights for all, a token is the mean of its cells: checked on merging alone, without attention."""
    tokens, size = torch.randn(1, 6, 4, 3), torch.ones(1, 6, 4)
    origins = torch.arange(24).view(1, 6, 4)
    in_time = MergePlan(torch.tensor([[4, 1, 3, 5]]), torch.tensor([[0, 2]]), torch.tensor([[1, 1]]))
    merged, size = merge(tokens, size, in_time)
    origins = follow(origins, in_time, 6, 4)
    in_space = MergePlan(
        torch.tensor([[0, 2, 3], [0, 1, 2], [1, 2, 3], [0, 1, 3]])[None],
        torch.tensor([[1], [3], [0], [2]])[None],
        torch.tensor([[0], [0], [2], [1]])[None],
    )
    merged, size = merge(merged, size, in_space)
    origins = follow(origins, in_space, 4, 1)
    flat = merged.flatten(1, 2)
    for token in range(12):
        cells = (origins == token)[0]
        assert cells.sum() == size.flatten()[token]
        torch.testing.assert_close(flat[0, token], tokens[0][cells].mean(dim=0))
    spread = unmerge(flat, origins)
    torch.testing.assert_close(spread.sum(dim=(1, 2)), tokens.sum(dim=(1, 2)))


def test_origins_change_nothing_else() -> None:
    model, video = encoder(*PAIRS["divided-geometry"]), clips(2)
    without, with_origins = model(video), model(video, return_origins=True)
    assert without.origins is None
    assert torch.equal(without.tokens, with_origins.tokens)


def test_follow_keeps_dropped_cells_dropped() -> None:
    origins = torch.tensor([[[0, -1, 2]]])
    plan = MergePlan(torch.tensor([[[0, 2]]]), torch.tensor([[[1]]]), None)
    followed: Tensor = follow(origins, plan, 3, 1)
    assert followed.tolist() == [[[0, -1, 1]]]
    assert follow(torch.tensor([[[0, 1, 2]]]), plan, 3, 1).tolist() == [[[0, -1, 1]]]


def test_keep_and_one_axis_are_accounted_for_too() -> None:
    for aggregation in (
        AggregationConfig(reducer="geometry", keep=0.25),
        AggregationConfig(reducer="geometry", frames_per_block=1),
        AggregationConfig(reducer="geometry", patches_per_block=3),
    ):
        encoded = encoder("divided", aggregation)(clips(2), return_origins=True)
        counts = torch.stack(
            [torch.bincount(one.flatten(), minlength=encoded.size.shape[1]) for one in encoded.origins]
        )
        assert torch.equal(counts[:, 1:].float(), encoded.size[:, 1:])
        assert encoded.size[:, 1:].sum(dim=1).tolist() == [FRAMES * NUM_PATCHES] * 2
