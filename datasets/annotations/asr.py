"""Aligns recognised speech, which has times and errors, with its denoised text, which has neither.

As in TVTSv2 (2023): each denoised word is assigned to the recognised word that it replaces. N recognised words, M
denoised words.
"""

import string
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.annotations.timed_words import TimedWord
from datasets.text import fix_encoding

OUT_OF_REACH = 9999
"""The cost of a pair of words whose positions are too far apart."""
SMALLEST_BAND = 32
PAIRS_AT_ONCE = 2**17
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def align(words: Sequence[TimedWord], denoised: Sequence[str]) -> list[TimedWord]:
    """Replace each recognised word by the denoised words assigned to it: several joined by spaces, or none.

    Args:
        words: in order of time; `clean_words` drops what is no word (`&nbsp;`, `>>`).
        denoised: consecutive pieces of text.
    """
    kept = clean_words(words)
    texts = align_words([word.word for word in kept], denoised_words(denoised))
    return [TimedWord(word.time, text) for word, text in zip(kept, texts, strict=True)]


def clean_words(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Fix the encoding of recognised words; drop HTML entities and empty words."""
    fixed = (
        TimedWord(word.time, fix_encoding(word.word))
        for word in words
        if not word.word.startswith("&") and not word.word.endswith(";")
    )
    return [word for word in fixed if word.word]


def denoised_words(pieces: Sequence[str]) -> list[str]:
    """Split denoised pieces at single spaces into words."""
    return [word for piece in pieces for word in fix_encoding(piece).split(" ")]


def align_words(recognised: Sequence[str], denoised: Sequence[str]) -> list[str]:
    """Assign each denoised word to one recognised word; returns the assigned words, joined by spaces, for each.

    Dynamic time warping: the cheapest path through the table of all pairs of words, where a pair costs its edit
    distance, ignoring case and punctuation. Pairs whose positions differ by more than a band cost the maximum.
    """
    if not recognised:
        return []

    # A surplus of denoised words beyond the band cannot match anything: cut it off.
    band = int(max(len(recognised) / 10, SMALLEST_BAND))
    if len(denoised) > len(recognised):
        denoised = denoised[: len(recognised) + band]
    if not denoised:
        return [""] * len(recognised)

    # The path may pass a denoised word several times: its first recognised word gets it.
    given: list[list[str]] = [[] for _ in recognised]
    used: set[int] = set()
    for place, other in cheapest_path(_costs(recognised, denoised, band)):
        if other not in used:
            given[place].append(denoised[other])
            used.add(other)

    return [" ".join(words) for words in given]


def cheapest_path(costs_NM: NDArray) -> list[tuple[int, int]]:
    """The path of least cost from the first pair to the last, in steps right, down or diagonal.

    It is traced back from the end; ties prefer the diagonal, then the previous row, then the previous column.
    """
    num_rows, num_columns = costs_NM.shape
    total = np.full((num_rows + 1, num_columns + 1), np.iinfo(np.int64).max // 2, dtype=np.int64)
    total[0, 0] = 0

    # `total` is the least cost of reaching each pair. Pairs on one anti-diagonal do not depend on each other, so each
    # anti-diagonal is computed at once.
    for diagonal in range(num_rows + num_columns - 1):
        rows = np.arange(max(0, diagonal - num_columns + 1), min(num_rows, diagonal + 1))
        columns = diagonal - rows
        before = np.minimum(total[rows, columns], np.minimum(total[rows, columns + 1], total[rows + 1, columns]))
        total[rows + 1, columns + 1] = costs_NM[rows, columns] + before

    # Trace the path back: step each time to the cheapest predecessor.
    row, column = num_rows - 1, num_columns - 1
    path = [(row, column)]
    while (row, column) != (0, 0):
        # `total` has a border of one, so these are the diagonal, the previous row and the previous column.
        ways = (total[row, column], total[row, column + 1], total[row + 1, column])
        best = min(range(3), key=ways.__getitem__)
        row, column = row - (best != 2), column - (best != 1)
        path.append((row, column))
    return path[::-1]


def _costs(recognised: Sequence[str], denoised: Sequence[str], band: int) -> NDArray:
    """The cost (N, M) of each pair of words."""
    costs = np.full((len(recognised), len(denoised)), OUT_OF_REACH, dtype=np.int64)
    words = sorted({_bare(word) for word in (*recognised, *denoised)})
    number = {word: index for index, word in enumerate(words)}
    rows = np.array([number[_bare(word)] for word in recognised])
    columns = np.array([number[_bare(word)] for word in denoised])

    # The band: pairs of words at similar positions.
    place = np.arange(len(recognised))[:, None]
    other = np.arange(len(denoised))[None]
    near = (other >= np.maximum(place - band, 0)) & (other < np.minimum(place + band, len(denoised)))

    # Words repeat: compare each pair of distinct words once.
    pairs = rows[:, None] * len(words) + columns[None]
    distinct, inverse = np.unique(pairs[near], return_inverse=True)
    costs[near] = edit_distances(words, distinct // len(words), distinct % len(words))[inverse]

    return costs


def edit_distances(words: Sequence[str], first_P: NDArray, second_P: NDArray) -> NDArray:
    """Levenshtein distances (P,) of pairs of words, each given by two indices into `words`."""
    lengths = np.array([len(word) for word in words])
    # The longest word of a batch sets the size of all its tables, so sort by length to keep long words together.
    order = np.argsort(np.maximum(lengths[first_P], lengths[second_P]), kind="stable")
    distances = np.zeros(len(first_P), dtype=np.int64)
    for start in range(0, len(order), PAIRS_AT_ONCE):
        chosen = order[start : start + PAIRS_AT_ONCE]
        distances[chosen] = _edit_distances(words, lengths, first_P[chosen], second_P[chosen])
    return distances


def _edit_distances(words: Sequence[str], lengths: NDArray, first_P: NDArray, second_P: NDArray) -> NDArray:
    """The dynamic program of Levenshtein, row by row, for all pairs at once."""
    longest = int(max(lengths[first_P].max(), lengths[second_P].max()))
    letters = np.zeros((len(words), longest), dtype=np.int32)
    for index in np.union1d(first_P, second_P):
        letters[index, : lengths[index]] = [ord(letter) for letter in words[index]]
    first, second = letters[first_P].T, letters[second_P].T  # (longest, P): one letter of all pairs per row

    # Short words end before the table does: read off their distance in the row and column where they end.
    rows_end, columns_end = lengths[first_P], lengths[second_P]
    row = [np.full(len(first_P), column) for column in range(longest + 1)]
    distances = np.where(rows_end == 0, columns_end, 0)
    for index in range(longest):
        previous, row = row, [np.full(len(first_P), index + 1)]
        for column in range(longest):
            substituted = previous[column] + (first[index] != second[column])
            row.append(np.minimum(substituted, np.minimum(previous[column + 1], row[column]) + 1))
        ended = np.flatnonzero(rows_end == index + 1)
        distances[ended] = np.stack(row)[columns_end[ended], ended]
    return distances


def _bare(word: str) -> str:
    return word.translate(_NO_PUNCTUATION).strip().lower()
