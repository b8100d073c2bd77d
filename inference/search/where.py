"""Filters of a search: which videos are looked at, by folder, tag, duration and time.

    folder=lectures duration>600 tag=news after=2024-01-01

Conditions stand apart by spaces, and all must hold. Quotes keep spaces in a value: folder="my lectures".

folder=NAME, folder!=NAME      the video lies below a folder NAME, or A/B, or /absolute/path
tag=NAME, tag!=NAME            it has a tag, of the manifest's `tags`
duration>S (>=, <, <=)         the whole file lasts so many seconds; 10m is 600, 1.5h is 5400
after=DATE, before=DATE        its file was last changed then or later, or earlier: 2024-01-31 or 2024-01-31T12:30, UTC;
                               neither holds for files at addresses, which have no such time
"""

import operator
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from inference.search.table import VideoTable

CONDITION = re.compile(r"([A-Za-z_]+)(!=|>=|<=|=|<|>)(.*)", re.DOTALL)
SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(s|m|h)?")
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
SIGNS: dict[str, tuple[str, ...]] = {
    "folder": ("=", "!="),
    "tag": ("=", "!="),
    "duration": (">", ">=", "<", "<="),
    "after": ("=",),
    "before": ("=",),
}
"""What each key may be followed by."""
COMPARE: dict[str, Callable[[NDArray, float], NDArray]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
EXAMPLE = "folder=lectures duration>600 tag=news after=2024-01-01"


@dataclass(frozen=True)
class Condition:
    """One condition: `value` is a text, seconds, or nanoseconds since 1970, as its key wants it."""

    key: str
    sign: str
    value: str | float | int

    def holds(self, table: VideoTable) -> NDArray:
        """Whether it holds for each row, (V,) bool."""
        if self.key == "folder":
            below = [_is_below(folder, str(self.value)) for folder in table.folders]
            return np.array(below, bool)[table.folder_of_row] == (self.sign == "=")

        if self.key == "tag":
            holds = np.full(len(table), self.sign == "!=")
            holds[table.rows_of_tag(str(self.value))] = self.sign == "="
            return holds

        if self.key == "duration":
            return COMPARE[self.sign](table.duration, float(self.value))  # false for NaN

        changed = table.changed
        return (changed >= self.value) if self.key == "after" else (changed >= 0) & (changed < self.value)


@dataclass(frozen=True)
class Where:
    """Conditions that must all hold."""

    conditions: tuple[Condition, ...]

    @classmethod
    def parse(cls, text: str) -> "Where | None":
        """Read conditions; None if there are none. ValueError names the part that cannot be read."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"the filter {text!r}: {error}; close the quotes") from None
        conditions = tuple(_condition(word) for word in words)
        return cls(conditions) if conditions else None

    def rows(self, table: VideoTable) -> NDArray:
        """The rows (R,) for which all conditions hold, ascending."""
        holds = np.ones(len(table), bool)
        for condition in self.conditions:
            holds &= condition.holds(table)
        return np.flatnonzero(holds)


def _condition(word: str) -> Condition:
    parts = CONDITION.fullmatch(word)
    if parts is None:
        raise ValueError(f"the filter's part {word!r} is no condition; write conditions such as {EXAMPLE}")
    key, sign, value = parts.groups()
    if key not in SIGNS:
        raise ValueError(f"the filter's part {word!r}: there is no {key!r}; filter by {', '.join(SIGNS)}")
    if sign not in SIGNS[key]:
        raise ValueError(f"the filter's part {word!r}: {key} takes {' or '.join(SIGNS[key])}, not {sign}")
    if not value:
        raise ValueError(f"the filter's part {word!r}: has no value; write conditions such as {EXAMPLE}")

    if key == "duration":
        return Condition(key, sign, _seconds(word, value))
    if key in ("after", "before"):
        return Condition(key, sign, _nanoseconds(word, value))
    return Condition(key, sign, value)


def _seconds(word: str, value: str) -> float:
    parts = SECONDS.fullmatch(value)
    if parts is None:
        raise ValueError(f"the filter's part {word!r}: {value!r} is no time; write seconds, or 10m or 1.5h")
    return float(parts[1]) * UNITS[parts[2] or ""]


def _nanoseconds(word: str, value: str) -> int:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(
            f"the filter's part {word!r}: {value!r} is no date; write 2024-01-31, or 2024-01-31T12:30 for a time, UTC"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000


def _is_below(folder: str, name: str) -> bool:
    """Whether a folder is, or lies below, one whose path ends with `name`, which may be several folders deep."""
    parts, wanted = PurePosixPath(folder).parts, PurePosixPath(name).parts
    if name.startswith("/"):
        return parts[: len(wanted)] == wanted
    return any(parts[first : first + len(wanted)] == wanted for first in range(len(parts) - len(wanted) + 1))
