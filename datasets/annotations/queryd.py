"""QuerYD: a list of names for each split, and one pickle of all captions, cut into tokens."""

import reprlib
from pathlib import Path
from typing import Any

from datasets.annotations import plain_pickle
from datasets.annotations.files import GET_IT_AGAIN, lines_of
from datasets.annotations.layout import RELEASE, Format, VideoFolder, check_split, choose
from datasets.records import Annotations, VideoTextRecord
from datasets.remote.addresses import Folder
from datasets.text import check_text

SPLITS = ("train", "val", "test")


def read(root: Path, split: str, videos: Folder) -> Annotations:
    """Read `exists_{split}_list.txt`, one name a line, and `raw_captions_combined_filtered.pkl`, name -> token lists.

    The caption joins all tokens of a video with spaces. Names have no suffix, and video files may have none either.
    """
    check_split("queryd", split, SPLITS)
    files = (f"exists_{split}_list.txt", "raw_captions_combined_filtered.pkl")
    found = choose("queryd", split, root, (Format(RELEASE, files),))
    names, captions = found.paths

    tokens = plain_pickle.load(captions)
    if not isinstance(tokens, dict):
        raise ValueError(f"{captions}: found {type(tokens).__name__}, not a dict of captions; {GET_IT_AGAIN}")

    folder = VideoFolder(videos, expected="")
    records: dict[str, VideoTextRecord] = {}
    for place, name in lines_of(names):
        if name in records:
            raise ValueError(f"{place}: {name!r} stands in an earlier line too; {GET_IT_AGAIN}")
        if name not in tokens:
            raise ValueError(f"{place}: no captions of {name!r} in {captions}; get both files from one place")
        text = _join_tokens(tokens[name], f"{captions}: {name!r}")
        records[name] = VideoTextRecord(folder.path(name), (text,))
    return Annotations(list(records.values()), "queryd", split, found.source, names=tuple(records))


def _join_tokens(sentences: Any, place: str) -> str:
    """The tokens of all sentences as one text; ValueError if they are not lists of texts, or have no words."""
    nested = isinstance(sentences, (list, tuple)) and all(isinstance(tokens, (list, tuple)) for tokens in sentences)
    if not nested or not all(isinstance(token, str) for tokens in sentences for token in tokens):
        raise ValueError(f"{place}: captions are {reprlib.repr(sentences)}, not lists of tokens; {GET_IT_AGAIN}")
    text = " ".join(" ".join(tokens) for tokens in sentences)
    check_text(text, f"{place}: the text")
    if not text.strip():
        raise ValueError(f"{place}: the captions have no words; {GET_IT_AGAIN}")
    return text
