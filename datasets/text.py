"""Captions and questions: which texts can be used, and how they are cleaned before they are tokenized."""

import re
from collections.abc import Callable


def has_words(text: str) -> bool:
    """Whether a text has a letter or a digit."""
    return any(character.isalnum() for character in text)


def check_text(text: str, name: str) -> None:
    """ValueError, which shows the text after `name`, if it is not Unicode that UTF-8 can spell, or holds a NUL.

    Tokenizers, files and other programs cannot take either. Half of a character gets into a text when it is cut
    between the two halves of an emoji's escape, `\\ud83d\\ude00`.
    """
    if "\0" in text:
        raise ValueError(f"{name} {_excerpt(text)} holds a NUL character (\\u0000); remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(text[error.start]).strip("'")
        raise ValueError(
            f"{name} {_excerpt(text)} is not valid Unicode: character {error.start + 1} is {half}, half of a surrogate "
            "pair; write the whole character or remove it"
        ) from None


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


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


def remove_punctuation(text: str) -> str:
    """Lower the case, delete , . ' ! ? " ( ) * # : ; ~ and turn - and / into spaces, as UMT does.

    `<person>`, which LSMDC writes for a name, becomes a word. Runs of white space become one space; typographic quotes
    stay.
    """
    text = re.sub(r"""[,.'!?"()*#:;~]""", "", text.lower())
    text = text.replace("-", " ").replace("/", " ").replace("<person>", "person")
    return re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")


def fix_encoding(text: str) -> str:
    """Mend mojibake, curly quotes, ligatures and the like, by the package ftfy; plain ASCII stays as it is.

    ValueError if a text needs it and it is not installed.
    """
    if text.isascii() and text.isprintable() and "&" not in text and "<" not in text:
        return text
    try:
        import ftfy
    except ImportError as error:
        raise ValueError(f"the text {text!r} needs the package ftfy: pip install ftfy") from error
    return ftfy.fix_text(text)


CLEAN_UPS: dict[str, Callable[..., str]] = {
    "none": str,
    "caption": clean_caption,
    "question": clean_question,
    "no_punctuation": remove_punctuation,
}
"""`data.clean_up` by name; `caption` and `question` also take `max_words`."""
