"""The words of a story: one sentence per scene, and questions whose answers come from closed sets."""

from collections import Counter

import numpy as np

from datasets.stories.stories import ACTIONS, BACKGROUNDS, COLOURS, SHAPES, Scene, Story, Thing

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")

TEMPLATES = (
    "{things} over a {background} background",
    "over a {background} background {things}",
    "{things} and the background is {background}",
)

WORD_TAGS = {
    **dict.fromkeys(SHAPES, "NOUN"),
    **{action.split()[0]: "VERB" for action in ACTIONS},
}
"""The nouns and verbs of a sentence: what is boxed, and what it does. All other words are neither."""

ANSWERS = {
    "colour": COLOURS,
    "shape": SHAPES,
    "action": ACTIONS,
    "background": BACKGROUNDS,
    "number": NUMBERS,
    "order": ("yes", "no"),
}
"""Every answer that each kind of `questions` can have."""

Question = tuple[str, str, str]
"""Kind, question, answer."""


def sentence(scene: Scene) -> str:
    """Returns the scene in words, without a full stop."""
    things = " and ".join(f"{_noun(thing)} {thing.action}" for thing in scene.things)
    return TEMPLATES[scene.template].format(things=things, background=scene.background)


def paragraph(story: Story) -> str:
    """Returns the sentences of the scenes, in order."""
    return " ".join(f"{sentence(scene)}." for scene in story)


def questions(story: Story, rng: np.random.Generator) -> list[Question]:
    """Returns at most one question of each kind below; all have exactly one right answer."""
    things = [thing for scene in story for thing in scene.things]
    ways = (
        _about_colour(things),
        _about_shape(things),
        _about_action(things),
        _about_number(story, things),
        _about_ends(story),
        _about_background(story),
        _about_order(story, rng),
    )
    return [way[rng.integers(len(way))] for way in ways if way]


def _noun(thing: Thing, article: str = "a") -> str:
    return f"{article} {thing.colour} {thing.shape}"


def _about_colour(things: list[Thing]) -> list[Question]:
    counts = Counter(thing.shape for thing in things)
    return [("colour", f"what colour is the {t.shape}?", t.colour) for t in things if counts[t.shape] == 1]


def _about_shape(things: list[Thing]) -> list[Question]:
    counts = Counter(thing.colour for thing in things)
    return [("shape", f"what shape is {t.colour}?", t.shape) for t in things if counts[t.colour] == 1]


def _about_action(things: list[Thing]) -> list[Question]:
    counts = Counter(_noun(thing) for thing in things)
    return [("action", f"what does {_noun(t, 'the')} do?", t.action) for t in things if counts[_noun(t)] == 1]


def _about_number(story: Story, things: list[Thing]) -> list[Question]:
    num_colours = len({thing.colour for thing in things})
    return [
        ("number", "how many colours are there?", NUMBERS[num_colours - 1]),
        ("number", "how many shapes come first?", NUMBERS[len(story[0].things) - 1]),
        ("number", "how many shapes come last?", NUMBERS[len(story[-1].things) - 1]),
    ]


def _about_ends(story: Story) -> list[Question]:
    ends = (("first", story[0]), ("last", story[-1]))
    return [
        ("action", f"what happens {when}?", scene.things[0].action) for when, scene in ends if len(scene.things) == 1
    ]


def _about_background(story: Story) -> list[Question]:
    return [
        ("background", "what background comes first?", story[0].background),
        ("background", "what background comes last?", story[-1].background),
    ]


def _about_order(story: Story, rng: np.random.Generator) -> list[Question]:
    """Asks which of two scenes comes first, naming each by a thing that no other scene shows."""
    if len(story) < 2:
        return []
    early, late = sorted(rng.choice(len(story), size=2, replace=False))
    first, second = story[early].things[0], story[late].things[0]
    counts = Counter(_noun(thing) for scene in story for thing in scene.things)
    if counts[_noun(first)] > 1 or counts[_noun(second)] > 1:
        return []

    answer = "yes"
    if rng.random() < 0.5:
        first, second, answer = second, first, "no"
    return [("order", f"does {_noun(first, 'the')} come before {_noun(second, 'the')}?", answer)]
