"""The figures: what is measured for them, and that they show it."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from benchmarks import encoder, plots
from benchmarks.growth import Point
from benchmarks.settings import Settings
from configs.load import from_dict
from configs.schema import AggregationConfig
from models.testa.cost import Cost

SMALL = ("model.depth=1", "model.width=32", "model.heads=2", "model.patch_size=8", "video.image_size=16")
NO_FRAMES = ("aggregation.frames_per_block=0", "aggregation.patches_per_block=1")


def drawn(figure: Figure, panel: int, label: str) -> list[tuple[float, float]]:
    """The points of one line of a figure."""
    (line,) = [line for line in figure.axes[panel].lines if line.get_label() == label]
    return [(float(x), float(y)) for x, y in line.get_xydata()]


@pytest.mark.usefixtures("in_this_process")
def test_figures_of_the_encoder_end_to_end(tmp_path: Path) -> None:
    settings = Settings(None, (*SMALL, "video.num_frames=2", *NO_FRAMES), "cpu", 1, 1)
    written = plots.encoder_figures(settings, tmp_path / "new", frames=(4,))
    assert [path.name for path in written] == [
        f"encoder_{name}.{kind}" for name in ("frames", "schedules") for kind in ("json", "png")
    ]
    rows = json.loads(written[0].read_text())
    assert [(row["aggregation"], row["frames"]) for row in rows] == [
        (aggregation, frames) for aggregation in ("no aggregation", "geometry R_T 0 R_S 1") for frames in (4,)
    ]
    assert all(row["seconds"] > 0 for row in rows)
    grid = json.loads(written[2].read_text())
    assert {(row["frames_per_block"], row["patches_per_block"]) for row in grid} == {
        (frames, patches) for frames in (0,) for patches in (0, 1, 2)
    }
    for png in written[1::2]:
        with Image.open(png) as image:
            assert len(image.convert("RGB").getcolors(2**24) or []) > 10  # something is drawn


@pytest.mark.parametrize(
    ("overrides", "of_frames", "of_patches"),
    [((), (0, 1, 2), (0, 4, 8, 12)), (("video.num_frames=96",), (0, 2, 4, 6), (0, 4, 8, 12))],
)
def test_the_grid_goes_up_to_what_the_model_can_lose(
    overrides: tuple[str, ...], of_frames: tuple, of_patches: tuple, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured: list[Point] = []
    monkeypatch.setattr(encoder, "measure_points", lambda points, settings, path: measured.extend(points))
    monkeypatch.setattr(encoder, "count", lambda *sections: Cost(1.0, 1.0, None, None, 1))
    encoder.schedule_grid(Settings(None, overrides, "cpu", 1, 1), tmp_path / "x.json")
    expected = [(frames, patches) for frames in of_frames for patches in of_patches]
    assert [(point.at["frames_per_block"], point.at["patches_per_block"]) for point in measured] == expected
    for point in measured:
        aggregation = from_dict(AggregationConfig, point.variant.arguments["aggregation"], "variant")
        assert aggregation.frames_per_block == point.at["frames_per_block"]
        assert aggregation.patches_per_block == point.at["patches_per_block"]


def test_time_and_memory_against_frames() -> None:
    rows = [
        {"aggregation": name, "frames": frames, "seconds": frames * cost, "peak_bytes": frames * cost * 2**30}
        for name, cost in (("none", 2), ("merged", 1))
        for frames in (16, 8)
    ]
    figure = plots.draw_frames(rows)
    for panel in (0, 1):
        assert drawn(figure, panel, "none") == [(8, 16), (16, 32)]
        assert drawn(figure, panel, "merged") == [(8, 8), (16, 16)]
        assert [text.get_text() for text in figure.axes[panel].get_xticklabels()] == ["8", "16"]


def test_numbers_of_near_frames_do_not_run_into_each_other() -> None:
    frames = (512, 1024, 1280, 2048)
    rows = [{"aggregation": "none", "frames": count, "seconds": 1.0, "peak_bytes": 2**30} for count in frames]
    figure = plots.draw_frames(rows)
    assert [count for count, _ in drawn(figure, 0, "none")] == [512, 1024, 1280, 2048]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["512", "1,024", "2,048"]


def test_memory_that_is_not_known_is_left_out() -> None:
    rows = [{"aggregation": "none", "frames": 8, "seconds": 2.0, "peak_bytes": None}]
    figure = plots.draw_frames(rows)
    assert (drawn(figure, 0, "none"), drawn(figure, 1, "none")) == ([(8, 2)], [])


def test_time_against_gmacs() -> None:
    rows = [
        {"frames_per_block": frames, "patches_per_block": patches, "gmacs": gmacs, "seconds": gmacs / 100}
        for frames, patches, gmacs in ((0, 0, 800), (0, 4, 700), (1, 0, 600), (1, 4, 500))
    ]
    figure = plots.draw_schedules(rows, 32)
    assert drawn(figure, 0, "$R_T$ = 0") == [(700, 7), (800, 8)]
    assert drawn(figure, 0, "$R_T$ = 1") == [(500, 5), (600, 6)]
    assert drawn(figure, 0, "time in step with GMACs") == [(0, 0), (800, 8)]
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "4", "0", "4"]
    assert "32 frames" in figure.axes[0].get_title()


def test_growth_of_evaluation_and_manifests() -> None:
    rows = [{"num_videos": n, "seconds": n / 10 + 1, "peak_bytes": 5 * 2**20} for n in (100, 1000)]
    figure = plots.draw_evaluation(rows)
    assert drawn(figure, 0, "ours") == [(100, 11), (1000, 101)]
    in_proportion = drawn(figure, 0, "in proportion")
    assert [seconds for _, seconds in in_proportion] == pytest.approx([10.1, 101])
    assert drawn(figure, 1, "ours") == [(100, 5), (1000, 5)]
    manifest = [{"rows": n, "seconds": n / 1e6, "seconds_again": 0.1, "peak_bytes": 2**20} for n in (10**6, 10**7)]
    figure = plots.draw_manifest(manifest)
    assert drawn(figure, 0, "first time, indexing it") == [(1e6, 1), (1e7, 10)]
    assert drawn(figure, 0, "again") == [(1e6, 0.1), (1e7, 0.1)]
    assert drawn(figure, 1, "first time") == [(1e6, 1), (1e7, 1)]
