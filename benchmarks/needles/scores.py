"""How many needles are found: their hour by the nearest of all rows, and their moment by that row's window.

A row is the embedding of a part of an hour. Shapes: R rows, P needles, E width of the shared space.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.features.sources import Clip


@dataclass(frozen=True)
class Needle:
    """What is searched for: a text, the name of its hour, and when it is seen there, in seconds."""

    text: str
    hour: str
    start: float
    end: float

    def is_in(self, clip: Clip) -> bool:
        """Whether a part of an hour shows at least some of it."""
        if Path(clip.video).name != self.hour:
            return False
        return (clip.start or 0.0) < self.end and (clip.end is None or clip.end > self.start)


def read_needles(path: Path) -> list[Needle]:
    """The needles of a set."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Needle(row["caption"], Path(row["video"]).name, row["start"], row["end"]) for row in rows]


def shares(
    clips: Sequence[Clip], embeddings_RE: NDArray, needles: Sequence[Needle], texts_PE: NDArray
) -> dict[str, float]:
    """What share of the needles is found, in percent, and what chance finds.

    `hour`: the row nearest to its text is of its hour; `hour_top5`: of the hours by their nearest rows, it is among
    five. `moment`: the nearest row of all shows the needle; `moment_in_hour`: the nearest row of its hour does. Chance
    takes any row.
    """
    hours = sorted({Path(clip.video).name for clip in clips})
    hour_of_row = np.array([hours.index(Path(clip.video).name) for clip in clips])
    rows_of_hour = [np.flatnonzero(hour_of_row == hour) for hour in range(len(hours))]

    found: dict[str, list[float]] = {name: [] for name in ("hour", "hour_top5", "moment", "moment_in_hour")}
    chance = []
    for needle, text in zip(needles, texts_PE, strict=True):
        cosine = embeddings_RE @ text
        nearest = [int(rows[cosine[rows].argmax()]) for rows in rows_of_hour]
        own = hours.index(needle.hour)
        rank = sum(cosine[row] > cosine[nearest[own]] for row in nearest)
        best = clips[nearest[int(np.argmax(cosine[nearest]))]]

        found["hour"].append(rank == 0)
        found["hour_top5"].append(rank < 5)
        found["moment"].append(needle.is_in(best))
        found["moment_in_hour"].append(needle.is_in(clips[nearest[own]]))
        chance.append(sum(needle.is_in(clips[row]) for row in rows_of_hour[own].tolist()) / len(clips))

    percent = {name: round(100 * float(np.mean(values)), 2) for name, values in found.items()}
    return percent | {
        "hour_chance": round(100 / len(hours), 2),
        "moment_chance": round(100 * float(np.mean(chance)), 3),
        "needles": len(needles),
        "rows": len(clips),
    }
