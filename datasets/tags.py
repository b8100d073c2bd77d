"""Which tokens of captions are nouns, and which verbs: a file for a data set's captions, found by the text."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from datasets.pairs import PackedTexts

OTHER, NOUN, VERB = 0, 1, 2
CODES = {"NOUN": NOUN, "VERB": VERB}
"""What a tag becomes; all other tags are `OTHER`."""
TEXTS_LOOKED_FOR = 1000
REMEDY = "tag the captions with `python -m scripts.tag_captions`, or leave out the alignment loss"


class TagStore:
    """A file of tags; `store[text]` are a caption's, one for each token between its start and end."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file; {REMEDY}")
        try:
            arrays = load_file(path)
            self._hashes, self._offsets, self._codes = (arrays[name] for name in ("hashes", "offsets", "codes"))
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path}: is no file of scripts.tag_captions ({error}); make it again") from None
        self.path = path

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, text: str) -> bool:
        return self._row(text) is not None

    def __getitem__(self, text: str) -> NDArray:
        try:
            return self._of(text)
        except ValueError as error:
            raise KeyError(str(error)) from None

    def _of(self, text: str) -> NDArray:
        row = self._row(text)
        if row is None:
            raise ValueError(f"{self.path}: has no tags of {text!r}; {REMEDY}")
        return self._codes[self._offsets[row] : self._offsets[row + 1]]

    def check(self, texts: PackedTexts) -> None:
        """Look for about a thousand evenly spread texts; ValueError, naming file and text, if one has no tags."""
        for position in range(0, len(texts), -(-len(texts) // TEXTS_LOOKED_FOR)):
            self._of(texts[position])

    @property
    def num_tokens(self) -> int:
        """Tokens of all captions."""
        return len(self._codes)

    def count(self, code: int) -> int:
        """How many tokens are `NOUN`, or `VERB`."""
        return int((self._codes == code).sum())

    def masks(self, texts: Sequence[str], lengths: Sequence[int], max_tokens: int) -> tuple[NDArray, NDArray]:
        """Nouns and verbs of texts, bool (P, S) both, behind the start token and cut with the text.

        Args:
            lengths: tokens of each text, start and end counted; the longest text has S.
            max_tokens: what longer texts were cut to.

        ValueError, naming the file and the text, if it has no tags, or was cut into other tokens when it was tagged.
        """
        codes = np.zeros((len(texts), max(lengths, default=0)), np.uint8)
        for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            found = self._of(text)
            if min(len(found) + 2, max_tokens) != length:
                raise ValueError(
                    f"{self.path}: has {len(found)} tags of {text!r}, which is {length - 2} tokens here; tag it with "
                    "the vocabulary that the model uses"
                )
            # Neither start nor end has a tag; a text that is cut keeps its end token.
            codes[row, 1 : length - 1] = found[: length - 2]
        return codes == NOUN, codes == VERB

    def merged(self, tags: Mapping[str, Sequence[int]]) -> dict[int, NDArray]:
        """All tags by hash, with new ones added."""
        rows = {
            int(hashed): self._codes[begin:end]
            for hashed, begin, end in zip(self._hashes, self._offsets[:-1], self._offsets[1:], strict=True)
        }
        return rows | {_hash(text): np.asarray(codes, np.uint8) for text, codes in tags.items()}

    def _row(self, text: str) -> int | None:
        hashed = np.uint64(_hash(text))
        row = int(np.searchsorted(self._hashes, hashed))
        return row if row < len(self._hashes) and self._hashes[row] == hashed else None


def save_tags(path: Path, tags: Mapping[str, Sequence[int]]) -> None:
    """Write tags of texts, beside those that are in the file already."""
    if path.is_file():
        rows = TagStore(path).merged(tags)
    else:
        rows = {_hash(text): np.asarray(codes, np.uint8) for text, codes in tags.items()}
    hashes = np.array(sorted(rows), np.uint64)
    ordered = [rows[int(hashed)] for hashed in hashes]
    offsets = np.cumsum([0, *map(len, ordered)]).astype(np.int64)
    codes = np.concatenate([np.zeros(0, np.uint8), *ordered])

    path.parent.mkdir(parents=True, exist_ok=True)
    unnamed = path.with_name(path.name + ".part")
    save_file({"hashes": hashes, "offsets": offsets, "codes": codes}, unnamed)
    unnamed.replace(path)


def read_published(path: Path) -> list[tuple[str, list[str]]]:
    """STOA-VLP's own `postagging_ids_*.pth`: ids and tags of captions, in the captions' order. Nothing of it is run.

    ValueError, naming file and entry, if it is of another form.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise anything
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is no file of plain data; nothing of it was run ({text})") from None
    if not isinstance(content, list):
        raise ValueError(f"{path}: holds {type(content).__name__}, not a list of (id, tags)")
    return [_entry(entry, f"{path}: entry {number}") for number, entry in enumerate(content)]


def codes_of(tags: Iterable[str]) -> list[int]:
    """Tags as numbers."""
    return [CODES.get(tag, OTHER) for tag in tags]


def token_codes(tags: Sequence[str], tokens_per_word: Sequence[int]) -> list[int]:
    """Each word's tag as the code of all its tokens."""
    codes = zip(codes_of(tags), tokens_per_word, strict=True)
    return [code for code, count in codes for _ in range(count)]


def _entry(entry: Any, place: str) -> tuple[str, list[str]]:
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        raise ValueError(f"{place}: is no pair of an id and a list of tags")
    name, tags = entry
    if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"{place} ({name}): has no list of tags")
    return str(name), list(tags)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
