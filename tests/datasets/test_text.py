"""Clean-up of captions and questions, in particular where the reference departs from BLIP."""

import pytest

from datasets.text import CLEAN_UPS, clean_caption, clean_question


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A Dog RUNS", "a dog runs"),
        ('say "hi"! (now) *#~x', "say hi now x"),
        ("e.g. one; two: three.", "e.g. one; two: three."),  # BLIP removes these
        ("who? me, it's 5% & more-or-less", "who? me, it's 5% & more-or-less"),
        ("  much   space \n\n here  ", "much space here"),
        ("a\tb\nc", "a\tb\nc"),  # single white space stays
        ("the end\n", "the end"),
        ("end \n", "end"),
        ("!!!", ""),
        ("ÉTÉ", "été"),
    ],
)
def test_clean_up(raw: str, clean: str) -> None:
    assert clean_caption(raw, max_words=50) == clean


def test_longest_is_max_words() -> None:
    assert clean_caption("One two  (three) four", max_words=3) == "one two three"
    assert clean_caption("one two three", max_words=3) == "one two three"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Is the Dog RUNNING?", "is the dog running?"),
        ('e.g. "no.3" (red) *#:;~!', "eg no3 red"),  # deleted, where captions get spaces
        ("who, me? it's 5% & more-or-less", "who, me? it's 5% & more-or-less"),
        ("  two  spaces stay \n", "  two  spaces stay"),
        ("end .", "end"),
        ("?", "?"),
    ],
)
def test_questions(raw: str, clean: str) -> None:
    assert clean_question(raw) == clean


def test_longest_question_is_max_words() -> None:
    assert clean_question("One two. three four", max_words=3) == "one two three"
    assert clean_question(" ".join(["word"] * 60)) == " ".join(["word"] * 50)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("e-mail: a@b.c", "e mail a@bc"),
        ("Someone/<PERSON> isn't (here)!", "someone person isnt here"),
        ("  two \t spaces \n\n here . ", "two spaces here"),
        ("“quoted” – 5% & more", "“quoted” – 5% & more"),
        ("pushing something - so that it moves?", "pushing something so that it moves"),
        ("end\n", "end"),
    ],
)
def test_without_punctuation(raw: str, clean: str) -> None:
    assert CLEAN_UPS["no_punctuation"](raw) == clean
