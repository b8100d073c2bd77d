"""The tower's benchmark: the naive way is the same computation, and every variant does the work it names."""

import json
import sys

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.child import build
from benchmarks.limit import MachineLimit
from benchmarks.settings import Settings
from benchmarks.tvts import encoder as benchmark
from benchmarks.tvts.encoder import WHOLE, Work, case_of, cases_of, pixels_of, products_of, tower_of
from benchmarks.tvts.naive_encoder import NaiveTower
from benchmarks.tvts.products import measure, recorded, without_activation
from tests.models.tvts.tiny import make_tower, make_video

SETTINGS = Settings(None, (), "cpu", 1, 1)
SMALL = {"depth": 2, "width": 32, "heads": 2, "patch_size": 8, "image_size": 32, "embed_dim": 16, "frames": 4}


@pytest.mark.parametrize("frames", [1, 5, 6])
@torch.no_grad()
def test_the_naive_tower_equals_ours(frames: int) -> None:
    ours, video = make_tower(), make_video(frames=frames)
    encoded = ours(video)
    naive = NaiveTower(ours)(video)
    torch.testing.assert_close(naive[:, 0], encoded.embedding, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(naive, ours.sequence(encoded), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("embedding_only", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_variant_is_built_and_runs(dtype: str, embedding_only: bool) -> None:
    case, *against_whole = cases_of(Work(dtype, embedding_only, **SMALL))
    for variant in (case.ours, case.naive, case.peer):
        assert variant is not None and build(variant, SETTINGS)() is None

    limits = [build(one.limit, SETTINGS) for one in (case, *against_whole) if one.limit is not None]
    assert all(limit() > 0 for limit in limits) and len(limits) == (2 if embedding_only else 1)
    own, *others = (limit.products for limit in limits if isinstance(limit, MachineLimit))
    assert all(other == products_of(Work(dtype, **SMALL)) != own for other in others)


def test_the_limit_of_the_embedding_alone_counts_what_is_left_of_the_last_block() -> None:
    patches, width = 4 * 16, 32
    whole, alone = products_of(Work("fp32", **SMALL)), products_of(Work("fp32", embedding_only=True, **SMALL))
    # Queries, keys, values, the projection and an MLP of four times the width; the class token's own keys and values.
    assert whole.linear_macs - alone.linear_macs == (patches * (3 + 1 + 4 + 4) + 2) * width**2
    # The class token asks all tokens once a head, and projects one query and one mean.
    heads, within_frames = 2, 2 * patches * (1 + 16) * width
    from_class = 2 * (1 + patches) * width * (heads - 1) + 2 * width**2
    assert alone.other_macs - whole.other_macs == from_class - within_frames


@torch.no_grad()
def test_layers_in_order_are_the_executed_ones_and_end_as_the_block_does() -> None:
    work = Work("fp32", **SMALL)
    tower, pixels = tower_of(SETTINGS, work).fold_for_inference(), pixels_of(SETTINGS, work)
    blocks = recorded(tower, pixels)
    macs = sum(shape.numel() * len(layer.bias) for _, _, calls in blocks for layer, shape in calls)

    # Patches and the embedding are projected before and after the blocks.
    patches, embedding = 4 * 16 * 3 * 8**2 * 32, 32 * 16
    assert macs == products_of(work).linear_macs - patches - embedding

    first, second = blocks[0][2][-2:]
    assert (first[0].activation, without_activation(first[0]).activation) == ("swish", "none")
    tokens = torch.randn(first[1])
    torch.testing.assert_close(second[0](first[0](tokens)), tower.blocks[0].mlp(tokens), atol=0, rtol=0)


def test_seconds_of_layers_and_blocks_are_positive() -> None:
    seconds = measure(SETTINGS, Work("fp32", **SMALL))
    assert len(seconds) == 5 and 0 < min(seconds.values()) < max(seconds.values()) < 1


def test_the_command_names_the_system_and_the_ratios(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "cases", lambda settings: [case_of(Work("fp32", **SMALL))])
    words = ["benchmarks", "encoder", "--system", "tvts", "--json", "--rounds", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", words)
    command.main()
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "tvts encoder fp32, 4 frames"
    assert row["ours_over_limit"] > 0 and row["naive_over_ours"] > 0


def test_cases_are_both_formats_at_fixed_sizes() -> None:
    assert [case.name for case in benchmark.cases(SETTINGS)] == [
        "encoder fp32, 12 frames", "encoder bf16, 12 frames",
        "embedding alone fp32, 12 frames", f"embedding alone fp32, 12 frames{WHOLE}",
        "embedding alone bf16, 12 frames", f"embedding alone bf16, 12 frames{WHOLE}",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="--system tvts"):
        benchmark.cases(Settings(None, ("video.num_frames=4",), "cpu", 1, 1))
