import re
from collections import Counter

import numpy as np

from datasets.stories.glimpse_pictures import render_long
from datasets.stories.glimpses import (
    LONGEST,
    ORDINALS,
    SHORTEST,
    SHORTEST_SCENE,
    draw_long_story,
    long_paragraph,
    long_questions,
)
from datasets.stories.pictures import RGB
from datasets.stories.stories import COLOURS, SHAPES

STORIES = [draw_long_story(np.random.default_rng(seed), 4, 64) for seed in range(300)]


def test_scenes_fill_the_video_and_hold_their_shapes() -> None:
    for story in STORIES:
        assert sum(glimpse.num_frames for glimpse in story) == 64 and len(story) == 4
        assert len({glimpse.colour for glimpse in story}) == 4
        for glimpse in story:
            assert glimpse.num_frames >= SHORTEST_SCENE
            assert 0 <= glimpse.begin and glimpse.begin + glimpse.seen <= glimpse.num_frames
    glimpses = [glimpse for story in STORIES for glimpse in story]
    assert {glimpse.colour for glimpse in glimpses} == set(COLOURS)
    assert {glimpse.shape for glimpse in glimpses} == set(SHAPES)
    assert {glimpse.seen for glimpse in glimpses} == set(range(SHORTEST, LONGEST + 1))
    assert np.std([glimpse.num_frames for glimpse in glimpses]) > 5


def answer_from_words(question: str, caption: str) -> str:
    """Answers by reading the paragraph, without the story."""
    told = re.findall(r"a (\w+) (\w+)\.", caption)
    colours = [colour for colour, _ in told]
    match question.removesuffix("?").split():
        case ["what", "colour", "comes", "after", colour]:
            return colours[colours.index(colour) + 1]
        case ["what", "colour", "comes", ordinal]:
            return colours[ORDINALS.index(ordinal)]
        case ["is", colour, "seen"]:
            return "yes" if colour in colours else "no"
    raise AssertionError(question)


def test_questions_have_the_answer_that_the_paragraph_gives() -> None:
    for story in STORIES:
        asked = long_questions(story)
        assert all(answer == answer_from_words(question, long_paragraph(story)) for _, question, answer in asked)
        # Half of what is seen is there, and each place and each neighbour is asked for.
        assert Counter(answer for kind, _, answer in asked if kind == "presence") == {"yes": 4, "no": 4}
        assert Counter(kind for kind, _, _ in asked) == {"presence": 8, "colour": 4 + 3}


def test_a_shape_is_seen_in_its_frames_alone_and_little_else_changes() -> None:
    for seed, story in enumerate(STORIES[:12]):
        frames = render_long(story, 32, np.random.default_rng(seed)).astype(int)
        first = 0
        for glimpse in story:
            colour = np.array(RGB[glimpse.colour])
            is_it = (np.abs(frames[first : first + glimpse.num_frames] - colour).max(axis=-1) < 8).sum(axis=(1, 2))
            seen = np.zeros(glimpse.num_frames, dtype=bool)
            seen[glimpse.begin : glimpse.begin + glimpse.seen] = True
            assert is_it[seen].min() > 10 and is_it[~seen].max(initial=0) < 10
            assert is_it.max() < 0.2 * 32 * 32
            first += glimpse.num_frames
