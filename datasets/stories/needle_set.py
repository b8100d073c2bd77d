"""A set of needles: hours to search, minutes to learn from, and what is seen when; fully determined by a seed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from datasets.encode import write_video
from datasets.stories.finished import made_by, make_whole, option, write_jsonl
from datasets.stories.needle_pictures import render_timeline
from datasets.stories.needles import (
    BRIEF,
    LONG,
    PASSING,
    Event,
    Item,
    Scene,
    Timeline,
    draw_hours,
    draw_minutes,
    glimpse_of,
    view_of,
)

# Raise it when the same arguments give other videos or words: older sets are then rejected instead of reused.
VERSION = 2
RECORD = "needle_set.json"
MINUTE = 60
"""Seconds of a video to learn from."""
NEEDLES = "needles.jsonl"
SCENES = "scenes.jsonl"
ALIKE = 8
"""Files to learn from. All events of the same two items are in one of them, so that a batch from it has look-alikes."""


@dataclass(frozen=True, kw_only=True)
class NeedleSet:
    """Everything that determines the content of a set; the command-line options have the same names.

    `window` is the length of the clips to learn from, in seconds, and `look_alikes` how many brief scenes of an hour
    differ from a needle of any hour in one fact. The first `test` of the minutes are held out.
    """

    hours: int = 50
    needles: int = 4
    look_alikes: int = 60
    seconds: int = 3600
    minutes: int = 1600
    test: int = 40
    families: int = 400
    window: int = 2
    size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"hours": 1, "needles": 1, "look_alikes": 0, "minutes": 2, "test": 1, "families": 1, "seed": 0}
        for name, minimum in {**least, "window": 2, "size": 32}.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{option(name)} {getattr(self, name)}: must be at least {minimum}")

        if self.size % 32:
            raise ValueError(f"--size {self.size}: must be a multiple of 32")
        if self.window > LONG[0]:
            raise ValueError(
                f"--window {self.window}: must be at most {LONG[0]}, or a clip to learn from has two events"
            )
        if self.test >= self.minutes:
            raise ValueError(f"--test {self.test}: leaves none of {self.minutes} minutes to learn from")

        fewest = BRIEF[1] * (self.needles + self.look_alikes) + LONG[1] + 1
        if self.seconds < fewest:
            raise ValueError(f"--seconds {self.seconds}: {self.needles} needles and their look-alikes take {fewest}")


@dataclass(frozen=True)
class VideoJob:
    """One video to render and encode; `rng_key` seeds its pixels, whichever worker renders it."""

    path: Path
    scenes: Timeline
    rng_key: tuple[int, ...]
    size: int


def make(out: Path, needle_set: NeedleSet, workers: int) -> bool:
    """Write the set to `out`, all of it or nothing; False if it is there already, ValueError if `out` holds another."""

    def write(folder: Path) -> None:
        jobs = write_annotations(folder, needle_set)
        for part in ("hours", "minutes"):
            (folder / "videos" / part).mkdir(parents=True)
        for _ in tqdm(made_by(make_video, jobs, workers), total=len(jobs), desc="needle videos", unit="video"):
            pass

    return make_whole(out, RECORD, {"version": VERSION, **asdict(needle_set)}, write)


def write_annotations(folder: Path, made: NeedleSet) -> list[VideoJob]:
    """Write every JSONL file to `folder` and return the videos to make."""
    rng = np.random.default_rng(made.seed)
    hours = draw_hours(rng, made.hours, made.needles, made.look_alikes, made.seconds)
    hidden = {needle.sight for hour in hours for needle in hour.needles}
    minutes = draw_minutes(rng, made.minutes, made.families, hidden, MINUTE)

    needles, scenes, jobs = [], [], []
    for index, hour in enumerate(hours):
        name = f"hours/hour_{index:02d}.mp4"
        needles += [_row(name, scene, scene.start, scene.end) for scene in hour.needles]
        scenes += [_row(name, scene, scene.start, scene.end) for scene in hour.scenes]
        jobs.append(VideoJob(folder / "videos" / name, hour.scenes, (made.seed, 0, index), made.size))
    write_jsonl(folder / NEEDLES, needles)
    write_jsonl(folder / SCENES, scenes)

    splits = [f"train_{number}" for number in range(ALIKE)] + ["test"]
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}
    file_of: dict[frozenset[Item], int] = {}
    for index, minute in enumerate(minutes):
        name = f"minutes/minute_{index:04d}.mp4"
        for scene in _clips(rng, minute, made.window):
            items = frozenset(scene.sight.items)
            number = file_of.setdefault(items, len(file_of) % ALIKE)
            rows["test" if index < made.test else f"train_{number}"].append(_row(name, scene, scene.start, scene.end))
        jobs.append(VideoJob(folder / "videos" / name, minute, (made.seed, 1, index), made.size))
    for split, own in rows.items():
        write_jsonl(folder / f"{split}.jsonl", own)
    return jobs


def _clips(rng: np.random.Generator, minute: Timeline, window: int) -> Iterator[Scene]:
    """What to learn from a minute: windows, and what each of them shows.

    There is one of every event, with the drifts around it, and one of the first drift, which is no event. One frame of
    an event that passes does not tell which way it goes, so there is another window for that.
    """
    for number, scene in enumerate(minute):
        if number == 0 or isinstance(scene.sight, Event):
            start, _ = view_of(rng, scene, window, MINUTE)
            yield Scene(scene.sight, start, window)
        if isinstance(scene.sight, Event) and scene.sight.relation in PASSING:
            yield glimpse_of(rng, scene, window)


def make_video(job: VideoJob) -> None:
    """Render a video and encode it, one frame a second."""
    frames = render_timeline(job.scenes, job.size, np.random.default_rng(job.rng_key))
    write_video(job.path, frames, fps=1)


def _row(video: str, scene: Scene, start: int, end: int) -> dict[str, Any]:
    return {"video": video, "caption": f"{scene.sight}.", "start": start, "end": end}
