"""Alignment of recognised and denoised speech against slow, plain programs."""

import itertools
import random
import time

import numpy as np
import pytest

from datasets.annotations.asr import align, align_words, cheapest_path, clean_words, edit_distances
from datasets.annotations.timed_words import TimedWord


def edit_distance(first: str, second: str) -> int:
    if not first or not second:
        return len(first) + len(second)
    return min(
        edit_distance(first[1:], second[1:]) + (first[0] != second[0]),
        edit_distance(first[1:], second) + 1,
        edit_distance(first, second[1:]) + 1,
    )


def test_edit_distances_are_those_of_the_definition() -> None:
    words = ["", "a", "ab", "ba", "abc", "acb", "kite", "sit", "tiki", "é"]
    pairs = np.array(list(itertools.product(range(len(words)), repeat=2)))
    expected = [edit_distance(words[first], words[second]) for first, second in pairs]
    assert edit_distances(words, pairs[:, 0], pairs[:, 1]).tolist() == expected


def cheapest_path_by_trying(costs: np.ndarray) -> tuple[int, set[tuple[tuple[int, int], ...]]]:
    """The least cost, and all paths that have it."""
    rows, columns = costs.shape
    found: dict[tuple[tuple[int, int], ...], int] = {}

    def walk(path: tuple[tuple[int, int], ...], cost: int) -> None:
        row, column = path[-1]
        if (row, column) == (rows - 1, columns - 1):
            found[path] = cost
        for step in ((1, 1), (1, 0), (0, 1)):
            after = (row + step[0], column + step[1])
            if after[0] < rows and after[1] < columns:
                walk((*path, after), cost + int(costs[after]))

    walk(((0, 0),), int(costs[0, 0]))
    least = min(found.values())
    return least, {path for path, cost in found.items() if cost == least}


@pytest.mark.parametrize("seed", range(20))
def test_path_is_a_cheapest_one_and_prefers_diagonals_from_the_end(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 4, (rng.integers(1, 6), rng.integers(1, 6)))
    _, paths = cheapest_path_by_trying(costs)
    preference = {(1, 1): 0, (1, 0): 1, (0, 1): 2}

    def steps_from_the_end(path: tuple[tuple[int, int], ...]) -> list[int]:
        backwards = path[::-1]
        return [preference[b[0] - a[0], b[1] - a[1]] for b, a in itertools.pairwise(backwards)]

    assert tuple(cheapest_path(costs)) == min(paths, key=steps_from_the_end)


def test_words_are_aligned_by_hand() -> None:
    recognised = ["were", "gonna", "make", "a", "pan", "cake"]
    # "pan" is nearer to "a" than to "pancake", and "a" was given to the word before.
    expected = ["We're", "gonna", "make", "a", "", "pancake,"]
    assert align_words(recognised, ["We're", "gonna", "make", "a", "pancake,"]) == expected
    assert align_words(["so", "now"], ["So,", "now", "what?"]) == ["So,", "now what?"]
    assert align_words(["a", "b"], []) == ["", ""] and align_words([], ["a"]) == []


def test_each_denoised_word_is_given_once_and_in_order() -> None:
    rng = random.Random(0)
    vocabulary = ["so", "we", "take", "the", "eggs", "and", "mix", "them", "well"]
    recognised = [rng.choice(vocabulary) for _ in range(300)]
    denoised = [word for word in recognised if rng.random() > 0.1] + ["end"] * 5
    given = [word for words in align_words(recognised, denoised) for word in words.split()]
    assert given == denoised


def test_what_is_no_word_is_dropped() -> None:
    words = [TimedWord(0.0, "&gt;&gt;"), TimedWord(1.0, "it’s"), TimedWord(2.0, "nbsp;"), TimedWord(3.0, "cold")]
    assert clean_words(words) == [TimedWord(1.0, "it's"), TimedWord(3.0, "cold")]
    assert align(words, ["It’s cold"]) == [TimedWord(1.0, "It's"), TimedWord(3.0, "cold")]


def test_an_hour_of_speech_takes_seconds() -> None:
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("abcdefghij", k=rng.randint(1, 9))) for _ in range(600)]
    recognised = rng.choices(vocabulary, k=3000)
    started = time.perf_counter()
    aligned = align_words(recognised, recognised)
    assert time.perf_counter() - started < 20 and aligned == recognised
