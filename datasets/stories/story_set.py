"""A story set: annotations and videos of many stories, fully determined by a few arguments and a seed."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from datasets.encode import write_video
from datasets.stories.finished import is_finished, made_by, make_whole, option, write_jsonl
from datasets.stories.flash_pictures import render_flashes
from datasets.stories.glimpse_pictures import render_long
from datasets.stories.glimpses import (
    FLASH,
    SHORTEST_SCENE,
    SLOW_SHARE,
    LongStory,
    draw_long_story,
    long_paragraph,
    long_questions,
)
from datasets.stories.pictures import render
from datasets.stories.sentences import Question, paragraph, questions
from datasets.stories.speech import SceneRow, TimedWords, long_scene_rows, long_speech, scene_rows, speech
from datasets.stories.stories import COLOURS, Story, draw_partnered, draw_story, num_paired

# Raise it when the same arguments give other videos or words: older sets are then rejected instead of reused.
VERSION = 2
RECORD = "story_set.json"

Kind = Literal["actions", "glimpses", "flashes"]
LONG_KINDS: tuple[Kind, ...] = ("glimpses", "flashes")


@dataclass(frozen=True, kw_only=True)
class StorySet:
    """Everything that determines the content of a story set; the command-line options have the same names."""

    train: int = 1500
    test: int = 200
    scenes: int = 3
    frames_per_scene: int = 8
    size: int = 64
    fps: int = 8
    seed: int = 0
    pairs: float = 0.5
    kind: Kind = "actions"

    def __post_init__(self) -> None:
        least = {"train": 1, "test": 1, "scenes": 1, "frames_per_scene": 2, "size": 32, "fps": 1, "seed": 0}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{option(name)} {getattr(self, name)}: must be at least {minimum}")

        if self.size % 32:
            raise ValueError(f"--size {self.size}: must be a multiple of 32; decord fails on some other small sizes")
        if not 0 <= self.pairs <= 1:
            raise ValueError(f"--pairs {self.pairs}: must be a share from 0 to 1")
        if self.scenes == 1 and self.pairs > 0:
            raise ValueError("--pairs: a story of one scene has no other order; add --pairs 0 or more --scenes")
        if self.kind in LONG_KINDS and not 2 <= self.scenes <= len(COLOURS):
            raise ValueError(f"--scenes {self.scenes}: {self.kind} take 2 to {len(COLOURS)}, each of another colour")
        if self.kind in LONG_KINDS and self.frames_per_scene < SHORTEST_SCENE:
            raise ValueError(f"--frames-per-scene {self.frames_per_scene}: {self.kind} take {SHORTEST_SCENE} or more")


@dataclass(frozen=True)
class World:
    """One kind of story: how to draw it, tell it, ask about it and render it, given the arguments of the set."""

    draw: Callable[[StorySet, str, np.random.Generator], Any]
    paragraph: Callable[[Any], str]
    speech: Callable[[StorySet, Any], TimedWords]
    scenes: Callable[[StorySet, str, Any], list[SceneRow]]
    questions: Callable[[Any, np.random.Generator], list[Question]]
    render: Callable[[StorySet, Any, np.random.Generator], NDArray[np.uint8]]


WORLDS = {
    "actions": World(
        lambda made, split, rng: draw_story(rng, made.scenes),
        paragraph,
        lambda made, story: speech(story, made.frames_per_scene / made.fps),
        lambda made, name, story: scene_rows(name, story, made.frames_per_scene / made.fps),
        questions,
        lambda made, story, rng: render(story, made.size, made.frames_per_scene, rng),
    ),
    "glimpses": World(
        lambda made, split, rng: draw_long_story(rng, made.scenes, made.scenes * made.frames_per_scene),
        long_paragraph,
        lambda made, story: long_speech(story, made.fps),
        lambda made, name, story: long_scene_rows(name, story, made.fps),
        lambda story, rng: long_questions(story),
        lambda made, story, rng: render_long(story, made.size, rng),
    ),
    "flashes": World(
        lambda made, split, rng: draw_long_story(
            rng, made.scenes, made.scenes * made.frames_per_scene, FLASH, SLOW_SHARE if split == "train" else 0.0
        ),
        long_paragraph,
        lambda made, story: long_speech(story, made.fps),
        lambda made, name, story: [
            # A scene alone is for learning what to look for: one that shows it.
            row
            for row, glimpse in zip(long_scene_rows(name, story, made.fps), story, strict=True)
            if glimpse.seen == glimpse.num_frames
        ],
        lambda story, rng: long_questions(story),
        lambda made, story, rng: render_flashes(story, made.size, rng),
    ),
}


@dataclass(frozen=True)
class VideoJob:
    """One video to render and encode; `rng_key` seeds its pixels, whichever worker renders it."""

    path: Path
    story: Story | LongStory
    rng_key: tuple[int, ...]
    story_set: StorySet


def make(out: Path, story_set: StorySet, workers: int) -> bool:
    """Writes the story set to `out`, all of it or nothing; returns False if it already exists.

    Raises ValueError if `out` holds anything else.
    """
    wanted = {"version": VERSION, **asdict(story_set)}
    if is_finished(out, RECORD, wanted, unrecorded={"kind": StorySet.kind}):
        _add_speech(out, story_set)
        return False

    def write(folder: Path) -> None:
        (folder / "videos").mkdir()
        jobs = write_annotations(folder, story_set)
        for _ in tqdm(made_by(make_video, jobs, workers), total=len(jobs), desc="story videos", unit="video"):
            pass

    return make_whole(out, RECORD, wanted, write)


def write_annotations(folder: Path, story_set: StorySet) -> list[VideoJob]:
    """Writes every JSONL file to `folder` and returns the videos to make."""
    rng = np.random.default_rng(story_set.seed)
    counts = {"train": story_set.train, "test": story_set.test}
    world = WORLDS[story_set.kind]
    splits = draw_partnered(rng, counts, partial(world.draw, story_set), story_set.pairs)

    jobs = []
    for split_index, (split, stories) in enumerate(splits.items()):
        names = [f"{split}_{index:05d}.mp4" for index in range(len(stories))]
        captions = [
            {"video": name, "caption": world.paragraph(story)} for name, story in zip(names, stories, strict=True)
        ]
        answers = [
            {"video": name, "question": question, "answer": answer}
            for name, story in zip(names, stories, strict=True)
            for _, question, answer in world.questions(story, rng)
        ]

        write_jsonl(folder / f"{split}.jsonl", captions)
        write_jsonl(folder / f"{split}_qa.jsonl", answers)
        duration = story_set.scenes * story_set.frames_per_scene / story_set.fps
        spoken = [
            {"video": name, "words": world.speech(story_set, story), "duration": duration}
            for name, story in zip(names, stories, strict=True)
        ]
        write_jsonl(folder / f"{split}_speech.jsonl", spoken)
        scenes = [
            row for name, story in zip(names, stories, strict=True) for row in world.scenes(story_set, name, story)
        ]
        write_jsonl(folder / f"{split}_scenes.jsonl", scenes)
        jobs += [
            VideoJob(folder / "videos" / name, story, (story_set.seed, split_index, index), story_set)
            for index, (name, story) in enumerate(zip(names, stories, strict=True))
        ]

        if split == "test":
            paired = num_paired(story_set.test, story_set.pairs)
            # Partners are neighbours: 0 and 1, 2 and 3, ...
            pairs = [{**captions[i], "reordered": captions[i ^ 1]["caption"]} for i in range(paired)]
            write_jsonl(folder / "order_pairs.jsonl", pairs)
    return jobs


def jobs_of(out: Path, story_set: StorySet) -> list[VideoJob]:
    """The videos of a finished set at `out`, as they were made."""
    with tempfile.TemporaryDirectory() as temporary:
        jobs = write_annotations(Path(temporary), story_set)
    return [replace(job, path=out / "videos" / job.path.name) for job in jobs]


def _add_speech(out: Path, story_set: StorySet) -> None:
    """Writes the timed words and scenes of a finished set that was made before there were any."""
    names = [f"{split}_{kind}.jsonl" for split in ("train", "test") for kind in ("speech", "scenes")]
    if all((out / name).is_file() for name in names):
        return
    with tempfile.TemporaryDirectory(dir=out, prefix=".speech.") as temporary:
        write_annotations(Path(temporary), story_set)
        for name in names:
            (Path(temporary) / name).rename(out / name)


def make_video(job: VideoJob) -> None:
    """Renders a video and encodes it."""
    write_video(job.path, draw(job), job.story_set.fps)


def draw(job: VideoJob) -> NDArray[np.uint8]:
    """Returns the pixels of a video before encoding: (frames, size, size, 3), RGB."""
    rng = np.random.default_rng(job.rng_key)
    return WORLDS[job.story_set.kind].render(job.story_set, job.story, rng)
