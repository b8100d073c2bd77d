"""What is spoken in a story, with times: each scene's sentence while the scene is shown. Times are in seconds."""

from collections.abc import Sequence

from datasets.stories.glimpses import LongStory
from datasets.stories.sentences import sentence
from datasets.stories.stories import Story

TimedWords = list[tuple[float, str]]


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
