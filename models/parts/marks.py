"""Punctuation in text that a tokenizer took apart."""

import re


def join_marks(text: str) -> str:
    """Join punctuation, which WordPiece splits off, with the words it belongs to."""
    text = re.sub(r" ([.,!?;:%)\]}])", r"\1", text)
    text = re.sub(r"([(\[{$#]) ", r"\1", text)
    text = re.sub(r"(?<=\w) ' (?=(?:s|t|m|d|ll|re|ve)\b)", "'", text)
    text = re.sub(r"(?<=\w) ([-/]) (?=\w)", r"\1", text)
    return re.sub(r"(?<=\d)([.,:]) (?=\d)", r"\1", text)
