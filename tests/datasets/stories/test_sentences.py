import re
from collections import defaultdict

import numpy as np

from datasets.stories.sentences import ANSWERS, paragraph, questions, sentence
from datasets.stories.stories import ACTIONS, BACKGROUNDS, COLOURS, SHAPES, Scene, Thing, draw_splits

THING = re.compile(rf"a ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) ({'|'.join(ACTIONS)})")
BACKGROUND = re.compile("|".join(BACKGROUNDS))
STORIES = draw_splits(np.random.default_rng(0), {"train": 500}, num_scenes=3, pair_share=0)["train"]


def test_sentence_in_each_wording() -> None:
    things = (Thing("red", "star", "moves left"), Thing("blue", "ring", "grows"))
    assert [sentence(Scene(things, "wavy", template)) for template in range(3)] == [
        "a red star moves left and a blue ring grows over a wavy background",
        "over a wavy background a red star moves left and a blue ring grows",
        "a red star moves left and a blue ring grows and the background is wavy",
    ]


def test_paragraph_tells_all_that_happens() -> None:
    for story in STORIES:
        sentences = paragraph(story).removesuffix(".").split(". ")
        for scene, words in zip(story, sentences, strict=True):
            assert tuple(Thing(*found) for found in THING.findall(words)) == scene.things
            assert BACKGROUND.findall(words) == [scene.background]


def answer_from_words(question: str, caption: str) -> str:
    """Answers by reading the paragraph, without the story."""
    sentences = caption.removesuffix(".").split(". ")
    scenes = [THING.findall(words) for words in sentences]
    things = [thing for scene in scenes for thing in scene]
    numbers = ["none", "one", "two", "three", "four", "five", "six"]
    ends = {"first": 0, "last": -1}
    match question.removesuffix("?").split():
        case ["what", "colour", "is", "the", shape]:
            found = [colour for colour, its_shape, _ in things if its_shape == shape]
        case ["what", "shape", "is", colour]:
            found = [shape for its_colour, shape, _ in things if its_colour == colour]
        case ["what", "does", "the", colour, shape, "do"]:
            found = [action for *noun, action in things if noun == [colour, shape]]
        case ["how", "many", "colours", "are", "there"]:
            found = [numbers[len({colour for colour, _, _ in things})]]
        case ["how", "many", "shapes", "come", when]:
            found = [numbers[len(scenes[ends[when]])]]
        case ["what", "happens", when]:
            found = [action for _, _, action in scenes[ends[when]]]
        case ["what", "background", "comes", when]:
            found = BACKGROUND.findall(sentences[ends[when]])
        case ["does", "the", colour, shape, "come", "before", "the", other_colour, other_shape]:
            first, second = f"a {colour} {shape}", f"a {other_colour} {other_shape}"
            assert caption.count(first) == caption.count(second) == 1
            found = ["yes" if caption.index(first) < caption.index(second) else "no"]
        case _:
            raise AssertionError(question)
    assert len(found) == 1, f"{question} has answers {found} in: {caption}"
    return found[0]


def test_answers_follow_from_the_paragraph_and_are_closed() -> None:
    rng = np.random.default_rng(0)
    given = defaultdict(list)
    for story in STORIES:
        asked = questions(story, rng)
        assert len(asked) >= 4
        assert len({question for _, question, _ in asked}) == len(asked)
        for kind, question, answer in asked:
            assert answer == answer_from_words(question, paragraph(story))
            given[kind].append(answer)
    assert set(given) == set(ANSWERS)
    for kind, answers in given.items():
        assert set(answers) <= set(ANSWERS[kind])
    assert all(set(given[kind]) == set(ANSWERS[kind]) for kind in ("colour", "shape", "action", "background"))
    assert 0.4 < given["order"].count("yes") / len(given["order"]) < 0.6


def test_vocabulary_is_small() -> None:
    rng = np.random.default_rng(0)
    captions = " ".join(paragraph(story) for story in STORIES)
    asked = " ".join(f"{question} {answer}" for story in STORIES for _, question, answer in questions(story, rng))
    assert len(set(re.findall("[a-z]+", captions))) < 40
    assert len(set(re.findall("[a-z]+", captions + asked))) < 70
    assert set(captions + asked) <= set("abcdefghijklmnopqrstuvwxyz .?")
