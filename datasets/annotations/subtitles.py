"""Words with times from subtitles: WebVTT, with the times of single words if it has them, and SubRip (SRT)."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datasets.annotations.files import text_of
from datasets.annotations.timed_words import TimedWord

SUFFIXES = (".vtt", ".srt")
_TIMES = re.compile(r"\s*((?:\d+:)?\d+:\d+[.,]\d+)\s*-->\s*((?:\d+:)?\d+:\d+[.,]\d+)")
_WORD_TIME = re.compile(r"<((?:\d+:)?\d+:\d+\.\d+)>")
_TAG = re.compile(r"<[^>]*>")
_SOUND = re.compile(r"\[[^\]]*\]")
SHORTEST_CUE = 0.02
"""YouTube repeats each finished line in a cue of 10 ms."""


class Cue(NamedTuple):
    """What is shown from `start` to `end`, in seconds, line by line as written."""

    start: float
    end: float
    lines: tuple[str, ...]


def read_subtitles(path: Path) -> list[TimedWord]:
    """The words of a .vtt or .srt file in order of time.

    If words have their own times, as in YouTube's automatic captions, these are used, and repeated lines are skipped.
    Otherwise the words of a cue are spread evenly over its duration. ValueError for a file without cues, and, with the
    line, for a cue that ends before it begins.
    """
    cues = list(_cues(path))
    if not cues:
        raise ValueError(f"{path}: holds no cue (00:00:01.000 --> 00:00:02.000 and text below it)")
    if any(_WORD_TIME.search(line) for cue in cues for line in cue.lines):
        words = [word for cue in cues for word in _words_with_times(cue)]
    else:
        words = [word for cue in cues for word in _spread(cue)]
    return sorted(words, key=lambda word: word.time)


def _cues(path: Path) -> Iterator[Cue]:
    lines = text_of(path).split("\n")
    number = 0
    while number < len(lines):
        found = _TIMES.match(lines[number])
        number += 1
        if found is None:
            continue
        start, end = _seconds(found[1]), _seconds(found[2])
        if end < start:
            raise ValueError(f"{path}:{number}: the cue ends at {end:g} s, before it begins at {start:g} s")

        held = []
        # An empty line ends a cue; a line with only a blank does not.
        while number < len(lines) and lines[number].rstrip("\r"):
            held.append(lines[number].rstrip("\r"))
            number += 1
        yield Cue(start, end, tuple(held))


def _words_with_times(cue: Cue) -> list[TimedWord]:
    """The words of the last line, the new one: the first at the start of the cue, the others at their own times."""
    if cue.end - cue.start <= SHORTEST_CUE or not cue.lines:
        return []
    first, *rest = _WORD_TIME.split(cue.lines[-1])
    timed = [(cue.start, first), *((_seconds(time), text) for time, text in zip(rest[::2], rest[1::2], strict=True))]
    return [TimedWord(time, word) for time, text in timed for word in _plain(text).split()]


def _spread(cue: Cue) -> list[TimedWord]:
    words = [word for line in cue.lines for word in _plain(line).split()]
    step = (cue.end - cue.start) / max(1, len(words))
    return [TimedWord(cue.start + (index + 0.5) * step, word) for index, word in enumerate(words)]


def _plain(text: str) -> str:
    """A line without markup and without notes of sounds, such as `[Music]`."""
    return _SOUND.sub("", html.unescape(_TAG.sub("", text)))


def _seconds(text: str) -> float:
    seconds = 0.0
    for part in text.replace(",", ".").split(":"):
        seconds = 60 * seconds + float(part)
    return round(seconds, 3)
