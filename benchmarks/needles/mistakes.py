"""What is taken for the needles that are missed, and how many a reader without mistakes would find.

Shapes: R rows, P needles, E width of the shared space.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.needles.scores import Needle, shares
from datasets.stories.needles import Event, read_event
from inference.features.sources import Clip

NO_EVENT, CHANGED_PLACES = "no event", "first and second"


def oracle(scenes: Sequence[Needle], needles: Sequence[Needle]) -> dict[str, float]:
    """The shares of a reader that tells every fact of every scene, and compares how many of them agree.

    100 means that the text of each needle is true of it alone.
    """
    # Each scene is a row, and each pair of a name and a value of some fact a column.
    facts = [_facts(scene) for scene in (*scenes, *needles)]
    columns = sorted(set[tuple[str, str]]().union(*(own.items() for own in facts)))
    one_hot = np.array([[own.get(name) == value for name, value in columns] for own in facts], dtype=np.float32)
    clips = [Clip(scene.hour, scene.start, scene.end, None, None) for scene in scenes]
    return shares(clips, one_hot[: len(scenes)], needles, one_hot[len(scenes) :])


def mistakes(
    clips: Sequence[Clip],
    embeddings_RE: NDArray,
    needles: Sequence[Needle],
    texts_PE: NDArray,
    scenes: Sequence[Needle],
) -> dict[str, int]:
    """How many needles' nearest row is of another hour, by the facts in which what it shows differs.

    Of several events in a row, the one most like the needle counts. The most frequent mistake comes first.
    """
    of_hour: dict[str, list[Needle]] = {}
    for scene in scenes:
        of_hour.setdefault(scene.hour, []).append(scene)

    found: Counter[str] = Counter()
    for needle, text in zip(needles, texts_PE, strict=True):
        nearest = clips[int((embeddings_RE @ text).argmax())]
        hour = Path(nearest.video).name
        if hour != needle.hour:
            found[_difference(needle, [scene for scene in of_hour[hour] if scene.is_in(nearest)])] += 1
    return dict(found.most_common())


def _difference(needle: Needle, shown: Sequence[Needle]) -> str:
    """The names of the facts in which the event most like the needle differs from it."""
    event = read_event(needle.text)
    assert event is not None, "a needle is an event"
    others = [other for scene in shown if (other := read_event(scene.text)) is not None]
    if not others:
        return NO_EVENT
    if Event(event.second, event.first, event.relation) in others:
        return CHANGED_PLACES
    differing = [{name for name, fact in event.facts.items() if other.facts[name] != fact} for other in others]
    fewest = min(differing, key=len)
    return ", ".join(sorted(fewest))


def _facts(scene: Needle) -> dict[str, str]:
    event = read_event(scene.text)
    return {} if event is None else event.facts
