import pytest

from scripts.reducer_comparison.figures import draw_quality, draw_tradeoff
from scripts.reducer_comparison.report import Row

MEASURED = {name: {"seconds": 0.01, "peak_bytes": 2**20} for name in ("none", "prune")}


def rows(*answers: float) -> list[Row]:
    recalls = {"R@1": [10.0, 20.0], "R@5": [40.0, 50.0], "R@10": [70.0, 80.0]}
    return [
        Row(name, "fine_tuned", gmacs, "1 frames a block", {**recalls, "QA": list(answers)})
        for name, gmacs in (("none", 1.0), ("prune", 0.5))
    ]


@pytest.mark.parametrize(("answers", "qualities"), [((), 1), ((30.0, 34.0), 2)])
def test_answers_are_drawn_as_soon_as_there_are_any(answers: tuple[float, ...], qualities: int) -> None:
    panels = draw_quality(rows(*answers)).axes
    assert len(panels) == qualities
    assert [list(panel.containers[1].lines[0].get_xdata()) for panel in panels] == [[45.0] * 2, [32.0] * 2][:qualities]
    for measured, costs in (({}, 1), (MEASURED, 3)):
        assert len(draw_tradeoff(rows(*answers), measured).axes) == costs * qualities


def test_each_reducer_stands_at_its_cost() -> None:
    recall, *_, memory = draw_tradeoff(rows(30.0, 34.0), MEASURED).axes
    points = [[float(value[0]) for value in bar.lines[0].get_data()] for bar in recall.containers]
    assert points == [[1.0, 45.0], [0.5, 45.0]]
    assert [[float(value[0]) for value in bar.lines[0].get_data()] for bar in memory.containers] == [[1.0, 32.0]] * 2
