from dataclasses import replace

import pytest

from benchmarks.reducers.figures import draw_quality, draw_tradeoff
from benchmarks.reducers.report import Row


def rows(*answers: float, measured: bool = True) -> list[Row]:
    """Two seeds, in both of which pruning loses two points of recall, and one or three of answers."""
    none = {"R@1": [10.0, 20.0], "R@5": [40.0, 50.0], "R@10": [70.0, 80.0], "QA": list(answers)}
    prune = {name: [value - 2.0 for value in values] for name, values in none.items()}
    prune["QA"] = [value - lost for value, lost in zip(answers, (1.0, 3.0), strict=False)]
    changes = {"recall": [-2.0, -2.5, -1.0], **({"answers": [-2.0, -4.0, 0.5]} if answers else {})}
    cost = {"milliseconds": 10.0, "mebibytes": 1.0} if measured else {}
    return [
        replace(Row("none", "fine_tuned", 1.0, "4 frames read", none), **cost),
        replace(Row("prune", "fine_tuned", 0.5, "1 frames a block", prune, "gmacs", changes=changes), **cost),
    ]


@pytest.mark.parametrize(("answers", "qualities"), [((), 1), ((30.0, 34.0), 2)])
def test_answers_are_drawn_as_soon_as_there_are_any(answers: tuple[float, ...], qualities: int) -> None:
    panels = draw_quality(rows(*answers)).axes
    assert len(panels) == qualities
    assert [list(panel.containers[0].lines[0].get_xdata()) for panel in panels] == [[-2.0], [-2.0]][:qualities]
    assert ["points against none, 95 % interval" in panel.get_xlabel() for panel in panels] == [True] * qualities
    ends = [bar.lines[2][0].get_segments()[0][:, 0].tolist() for bar in (panel.containers[0] for panel in panels)]
    assert ends == [[-2.5, -1.0], [-4.0, 0.5]][:qualities]
    names = ["GMACs a video", "milliseconds a video (one thread)", "peak memory (MiB)"]
    for measured, costs in ((False, 1), (True, 3)):
        labels = [panel.get_xlabel() for panel in draw_tradeoff(rows(*answers, measured=measured)).axes]
        assert len(labels) == costs * qualities and labels[-costs:] == names[:costs]


def test_each_reducer_stands_at_its_cost() -> None:
    recall, *_, memory = draw_tradeoff(rows(30.0, 34.0)).axes
    points = [[float(value[0]) for value in bar.lines[0].get_data()] for bar in recall.containers]
    assert points == [[1.0, 45.0], [0.5, 43.0]]
    points = [[float(value[0]) for value in bar.lines[0].get_data()] for bar in memory.containers]
    assert points == [[1.0, 32.0], [1.0, 30.0]]
