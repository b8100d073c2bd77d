import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from tasks.metrics.intervals import Outcomes, metric_intervals, paired_differences, replicated
from tasks.metrics.recognition import mean_per_class
from tasks.metrics.retrieval import recalls


def answers(right: NDArray, videos: list[str] | None = None) -> dict[str, Outcomes]:
    items = [f"question {number}" for number in range(len(right))]
    return {"questions": Outcomes("percent", items, videos or items, {"accuracy": np.asarray(right, float)})}


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    """Drawing N of N items again, of which a share p is right, gives Binomial(N, p) right ones."""
    right = np.arange(200) < 60
    low, high = metric_intervals(answers(right), replicates=20_000)["accuracy"]
    exact_low, exact_high = (100 * binom.ppf(part, 200, 0.3) / 200 for part in (0.025, 0.975))
    assert (low, high) == pytest.approx((exact_low, exact_high), abs=0.5)


def test_items_of_a_video_are_drawn_together() -> None:
    """Ten equal questions a video tell as much as one: the interval is that of the videos, not of the questions."""
    right = np.arange(40) < 20
    of_videos = metric_intervals(answers(right), replicates=20_000)["accuracy"]
    videos = [f"video {number // 10}" for number in range(400)]
    of_questions = metric_intervals(answers(right.repeat(10), videos), replicates=20_000)["accuracy"]
    assert of_questions == pytest.approx(of_videos, abs=1.3)
    alone = metric_intervals(answers(right.repeat(10)), replicates=2_000)["accuracy"]
    assert alone[1] - alone[0] < 0.4 * (of_questions[1] - of_questions[0])


def test_the_order_of_items_makes_no_difference() -> None:
    rng = np.random.default_rng(1)
    right = rng.random(50) < 0.4
    (outcomes,) = answers(right, [f"v{number % 7}" for number in range(50)]).values()
    order = rng.permutation(50)
    moved = Outcomes(
        "percent",
        [outcomes.items[place] for place in order],
        [outcomes.videos[place] for place in order],
        {"accuracy": outcomes.values["accuracy"][order]},
    )
    assert metric_intervals({"questions": moved}) == metric_intervals({"questions": outcomes})


def test_weighted_statistics_equal_those_of_repeated_items() -> None:
    rng = np.random.default_rng(2)
    ranks, weights = rng.integers(1, 70, size=31), rng.integers(0, 4, size=(5, 31))
    names = [str(number) for number in range(31)]
    outcomes = Outcomes("ranks", names, names, {"t2v_{}": ranks.astype(float)})
    found = replicated(outcomes, weights.astype(float))
    for row, weight in enumerate(weights):
        expected = recalls(ranks.repeat(weight), "t2v")
        assert {name: values[row] for name, values in found.items()} == pytest.approx(expected)


def test_the_mean_over_classes_equals_that_of_repeated_videos() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(40, 4)), rng.integers(0, 3, size=40)  # of the fourth class there is no video
    weights = rng.integers(0, 3, size=(4, 40))
    right = (logits.argmax(axis=1) == labels).astype(float)
    names = [str(number) for number in range(40)]
    outcomes = Outcomes("mean_per_class", names, names, {"mean_per_class": right}, [f"class {at}" for at in labels])
    found = replicated(outcomes, weights.astype(float))["mean_per_class"]
    for row, weight in enumerate(weights):
        assert found[row] == pytest.approx(mean_per_class(logits.repeat(weight, axis=0), labels.repeat(weight)))


def test_items_that_do_not_count_are_left_out() -> None:
    values = np.array([1, 0, 1, np.nan, np.nan])
    names = list("abcde")
    outcomes = {"questions": Outcomes("percent", names, names, {"accuracy_motion": values})}
    low, high = metric_intervals(outcomes)["accuracy_motion"]
    assert 0 <= low < 200 / 3 < high <= 100


def test_replicates_without_an_item_of_a_set_are_left_out() -> None:
    """Of ten videos one alone has a text: a third of the replicates do not draw it."""
    videos = [f"video {number}" for number in range(10)]
    sets = {
        "t2v": Outcomes("ranks", ["text"], videos[:1], {"t2v_{}": np.array([3.0])}),
        "v2t": Outcomes("ranks", videos, videos, {"v2t_{}": np.arange(1.0, 11.0)}),
    }
    found = metric_intervals(sets)
    assert found["t2v_median_rank"] == [3, 3] and found["t2v_r1"] == [0, 0] and found["t2v_r5"] == [100, 100]
    low, high = found["v2t_mean_rank"]
    assert low < 5.5 < high


def test_a_result_does_not_differ_from_itself() -> None:
    sets = answers(np.arange(30) % 3 == 0)
    found = paired_differences([(sets, sets)])["accuracy"]
    assert (found.low, found.high) == (0, 0) and not found.is_shown


def test_a_paired_difference_has_the_interval_of_the_pairs_alone() -> None:
    """B is right wherever A is, and on 10 of 100 items more: what both share adds nothing to the interval."""
    a = np.arange(100) < 50
    b = np.arange(100) < 60
    found = paired_differences([(answers(a), answers(b))], replicates=20_000)["accuracy"]
    exact = [binom.ppf(part, 100, 0.1) for part in (0.025, 0.975)]
    assert (found.low, found.high) == pytest.approx(exact, abs=0.6)
    assert (found.a, found.b) == (50, 60) and found.is_shown


def test_of_several_runs_the_runs_are_drawn_too() -> None:
    """Each run's difference is certain, and they differ by 20 points: only drawing runs gives the interval a width."""
    none, some, every = np.zeros(20, bool), np.ones(20, bool), np.ones(20, bool)
    found = paired_differences([(answers(none), answers(some)), (answers(every), answers(every))])["accuracy"]
    assert (found.low, found.high) == (0, 100) and found.b - found.a == 50 and not found.is_shown
