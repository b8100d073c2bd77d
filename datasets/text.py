"""Clean-up of captions and questions, as the reference's; needs nothing but the standard library."""

import re


def clean_caption(text: str, max_words: int) -> str:
    """Lower the case, blank out ! " ( ) * # ~, squeeze white space and keep the first `max_words` words.

    Full stops, colons and semicolons stay, which BLIP removes. A single tab or newline between words stays too: only
    runs of white space become one space, and words are what spaces separate.
    """
    text = re.sub(r'[!"()*#~]', " ", text.lower())
    text = re.sub(r"\s{2,}", " ", text)
    text = text.rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def clean_question(text: str, max_words: int = 50) -> str:
    """Lower the case, delete . ! " ( ) * # : ; ~ and keep the first `max_words` words.

    As the reference's `pre_question`: deleted, not blanked out, and white space inside is left as it is. Words are what
    spaces separate.
    """
    text = re.sub(r'[.!"()*#:;~]', "", text.lower()).rstrip()
    return " ".join(text.split(" ")[:max_words])
