"""Long stories: still scenes, each with a small coloured shape for a moment and grey shapes all the time.

The text says which coloured shapes appear, and in which order; backgrounds and grey shapes only distract. Most frames
are alike, so a model can merge many tokens; but what matters is small and brief, so it must not lose it.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from datasets.stories.sentences import Question
from datasets.stories.stories import BACKGROUNDS, COLOURS, SHAPES

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
SHORTEST, LONGEST = 2, 12
"""The number of frames that show the coloured shape."""
FLASH = (1, 2)
"""The same of a flash: a model that looks at every other frame misses a quarter of them."""
SLOW_SHARE = 0.5
"""The share of the scenes of training videos that show their shape throughout: from these a small model learns what to
look for."""
SHORTEST_SCENE = 8
DISTRACTORS = 1


@dataclass(frozen=True)
class Glimpse:
    """A still scene of `num_frames`, and a coloured shape that `seen` of them show, from frame `begin` on."""

    colour: str
    shape: str
    background: str
    num_frames: int
    begin: int
    seen: int

    @property
    def facts(self) -> tuple[str, str]:
        """What the text says about it."""
        return self.colour, self.shape


LongStory = tuple[Glimpse, ...]


def draw_long_story(
    rng: np.random.Generator,
    num_scenes: int,
    num_frames: int,
    seen_frames: tuple[int, int] = (SHORTEST, LONGEST),
    slow_share: float = 0.0,
) -> LongStory:
    """Draws scenes of different lengths, `num_frames` together, whose coloured shapes differ in colour.

    `seen_frames` are the fewest and the most frames that show a shape; a share of them stays throughout.
    """
    colours = rng.permutation(COLOURS)[:num_scenes]

    # Every scene gets the shortest length; random cuts divide the remaining frames between them.
    spare = num_frames - SHORTEST_SCENE * num_scenes
    ends = np.sort(rng.integers(spare + 1, size=num_scenes - 1))
    lengths = np.diff(ends, prepend=0, append=spare) + SHORTEST_SCENE

    story = []
    for colour, length in zip(colours.tolist(), lengths.tolist(), strict=True):
        # Without a share nothing is drawn, so that older sets stay as they are.
        is_slow = slow_share > 0 and rng.random() < slow_share
        fewest, most = (length, length) if is_slow else seen_frames
        seen = int(rng.integers(fewest, min(most, length) + 1))
        begin = int(rng.integers(length - seen + 1))
        shape, background = str(rng.choice(SHAPES)), str(rng.choice(BACKGROUNDS))
        story.append(Glimpse(colour, shape, background, length, begin, seen))
    return tuple(story)


def long_paragraph(story: LongStory) -> str:
    """Returns a sentence for each small shape, in order."""
    return " ".join(f"a {glimpse.colour} {glimpse.shape}." for glimpse in story)


def long_questions(story: LongStory) -> list[Question]:
    """Returns all questions of each kind, each with one right answer.

    There are many simple ones, so that a small model learns to look; from a few it would learn to guess.
    """
    colours = [glimpse.colour for glimpse in story]
    return [
        *(("presence", f"is {colour} seen?", "yes" if colour in colours else "no") for colour in COLOURS),
        *(("colour", f"what colour comes {place}?", colour) for place, colour in zip(ORDINALS, colours, strict=False)),
        *(("colour", f"what colour comes after {one}?", other) for one, other in pairwise(colours)),
    ]
