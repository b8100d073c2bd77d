"""What is said in a story, with times in seconds: sentences while scenes are shown, and scenes as clips."""

from collections.abc import Sequence
from typing import Any

from datasets.stories.glimpses import LongStory
from datasets.stories.sentences import sentence
from datasets.stories.stories import Story

TimedWords = list[tuple[float, str]]
SceneRow = dict[str, Any]
"""`{"video", "caption", "start", "end"}`."""


def speech(story: Story, seconds_per_scene: float) -> TimedWords:
    """Each scene's sentence, its words spread evenly over the scene."""
    words: TimedWords = []
    for number, scene in enumerate(story):
        words += spread(sentence(scene).split(), number * seconds_per_scene, seconds_per_scene)
    return words


def long_speech(story: LongStory, fps: int) -> TimedWords:
    """The words for each small shape, spread evenly over the time in which it is seen."""
    words: TimedWords = []
    first_frame = 0
    for glimpse in story:
        start = (first_frame + glimpse.begin) / fps
        words += spread(["a", glimpse.colour, glimpse.shape], start, glimpse.seen / fps)
        first_frame += glimpse.num_frames
    return words


def spread(words: Sequence[str], start: float, seconds: float) -> TimedWords:
    """Words at the middles of equal parts of `seconds` from `start` on."""
    step = seconds / len(words)
    return [(round(start + (number + 0.5) * step, 4), word) for number, word in enumerate(words)]


def scene_rows(video: str, story: Story, seconds_per_scene: float) -> list[SceneRow]:
    """Each scene as a part of the video, with its sentence."""
    return [
        {"video": video, "caption": f"{sentence(scene)}.", "start": start, "end": round(start + seconds_per_scene, 4)}
        for scene, start in ((scene, round(n * seconds_per_scene, 4)) for n, scene in enumerate(story))
    ]


def long_scene_rows(video: str, story: LongStory, fps: int) -> list[SceneRow]:
    """Each scene as a part of the video, with the words for its small shape."""
    rows: list[SceneRow] = []
    first_frame = 0
    for glimpse in story:
        end_frame = first_frame + glimpse.num_frames
        start, end = round(first_frame / fps, 4), round(end_frame / fps, 4)
        rows.append({"video": video, "caption": f"a {glimpse.colour} {glimpse.shape}.", "start": start, "end": end})
        first_frame = end_frame
    return rows
