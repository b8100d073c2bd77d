"""MSVD: 1970 YouTube clips with 18 to 81 captions each, every one a query of its own."""

import reprlib
from pathlib import Path

from datasets.annotations import plain_pickle, vindlu
from datasets.annotations.files import GET_IT_AGAIN, json_of, lines_of
from datasets.annotations.layout import AUTHORS, Format, VideoFolder, check_split, choose
from datasets.records import Annotations, VideoTextRecord
from datasets.remote.addresses import Folder
from datasets.text import check_text

SPLITS = ("train", "val", "test")
TEXTS, TOKENS = "captions_msvd.json", "raw-captions.pkl"
JOINED = f"{AUTHORS}, joined to texts"


def read(root: Path, split: str, videos: Folder) -> Annotations:
    """Read a list of videos with all captions, or VindLU's `msvd_ret_{split}.json`.

    The captions are `captions_msvd.json` (name -> texts), or `raw-captions.pkl` (name -> lists of words), beside
    `{split}_list.txt`, a name a line.
    """
    check_split("msvd", split, SPLITS)
    names = f"{split}_list.txt"
    formats = (
        Format(JOINED, (TEXTS, names)),
        Format(AUTHORS, (TOKENS, names)),
        Format(vindlu.VINDLU, (f"msvd_ret_{split}.json",)),
    )
    found = choose("msvd", split, root, formats)
    if found.format.whose == vindlu.VINDLU:
        texts = vindlu.read_captions(found.paths[0])
    else:
        texts = _listed(found.paths[0], found.paths[1])

    folder = VideoFolder(videos, expected=".avi")
    records = [VideoTextRecord(folder.path(name), tuple(captions)) for name, captions in texts.items()]
    return Annotations(records, "msvd", split, found.source, names=tuple(texts))


def _listed(captions_path: Path, list_path: Path) -> dict[str, list[str]]:
    """The captions of the listed videos, in the order of the list."""
    content = plain_pickle.load(captions_path) if captions_path.name == TOKENS else json_of(captions_path)
    if not isinstance(content, dict):
        raise ValueError(f"{captions_path}: found {type(content).__name__}, not captions by name; {GET_IT_AGAIN}")

    texts: dict[str, list[str]] = {}
    for place, name in lines_of(list_path):
        if name in texts:
            raise ValueError(f"{place}: {name!r} stands in an earlier line too; {GET_IT_AGAIN}")
        if name not in content:
            raise ValueError(f"{place}: {name!r} is not in {captions_path}; get both files from one place")
        texts[name] = _captions(content[name], f"{captions_path}: {name!r}")
    return texts


def _captions(value: object, place: str) -> list[str]:
    """Texts, or lists of words joined to texts; ValueError if they are neither, or blank."""
    captions = value if isinstance(value, list) else []
    joined = [" ".join(words) if _are_words(words) else words for words in captions]
    texts = [text for text in joined if isinstance(text, str) and text.strip()]
    if not texts or len(texts) < len(captions):
        raise ValueError(f"{place}: captions are {reprlib.repr(value)}, not a list of texts; {GET_IT_AGAIN}")
    for text in texts:
        check_text(text, f"{place}: a caption")
    return texts


def _are_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
