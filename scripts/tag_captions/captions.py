"""Captions to tag: of manifests, plain lists, or the JSON list that STOA-VLP's own tags were made of."""

import functools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets.annotations import manifest
from datasets.tags import codes_of, read_published, token_codes
from models.parts.clip.tokenizer import PAD_ID, ClipTokenizer, load_clip_tokenizer
from scripts.parts.worker_pool import Beat
from scripts.tag_captions.taggers import tagger

CAPTIONS_AT_ONCE = 500


@dataclass(frozen=True)
class Chunk:
    """Some captions for a worker."""

    captions: tuple[str, ...]
    tokenizer: str
    tagger: str


def captions_of(path: Path) -> Iterator[str]:
    """The captions of a manifest (.jsonl), or the lines of a text file. ValueError names file and line."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if path.suffix != ".jsonl":
                yield line.strip()
                continue
            try:
                yield from manifest.caption_row(line.encode())["caption"]
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None


def chunks(captions: Iterable[str], tokenizer: str, name: str) -> list[Chunk]:
    """The distinct captions, some at a time."""
    distinct = list(dict.fromkeys(captions))
    starts = range(0, len(distinct), CAPTIONS_AT_ONCE)
    return [Chunk(tuple(distinct[start : start + CAPTIONS_AT_ONCE]), tokenizer, name) for start in starts]


def tag_chunk(chunk: Chunk, beat: Beat) -> list[list[int]]:
    """The codes of each caption's tokens."""
    tokenizer = _tokenizer(chunk.tokenizer)
    words = [tokenizer.words(caption) for caption in chunk.captions]
    beat()

    texts, tokens_per_word = [], []
    for caption in words:
        texts.append([word for word, _ in caption])
        tokens_per_word.append([count for _, count in caption])

    tags = tagger(chunk.tagger)(texts)
    return [token_codes(found, counts) for found, counts in zip(tags, tokens_per_word, strict=True)]


def published_tags(tags: Path, captions: Path, tokenizer: ClipTokenizer) -> dict[str, list[int]]:
    """The tags of STOA-VLP's own file by caption. ValueError for an entry that does not fit its caption."""
    rows = _published_captions(captions)
    entries = read_published(tags)
    if len(rows) != len(entries):
        raise ValueError(f"{tags}: has tags of {len(entries)} captions, and {captions} has {len(rows)}")
    found: dict[str, list[int]] = {}
    for number, ((video, caption), (name, its_tags)) in enumerate(zip(rows, entries, strict=True)):
        place = f"{tags}: entry {number} ({name})"
        if name != video:
            raise ValueError(f"{place}: the caption in its place in {captions} is of {video}")
        found[caption] = _fit(codes_of(its_tags), caption, tokenizer, place)
    return found


def _fit(codes: list[int], caption: str, tokenizer: ClipTokenizer, place: str) -> list[int]:
    """One code a token. The published code drops tokens of id 0, a mark within a word, which get no tag."""
    (ids,), _ = tokenizer([caption], max_tokens=10_000)
    tokens = ids[1:-1].tolist()
    if len(codes) == len(tokens):
        return codes
    if len(codes) == sum(token != PAD_ID for token in tokens):
        left = iter(codes)
        return [0 if token == PAD_ID else next(left) for token in tokens]
    raise ValueError(f"{place}: has {len(codes)} tags, and the caption has {len(tokens)} tokens: {caption!r}")


def _published_captions(path: Path) -> list[tuple[str, str]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [(str(row["video_id"]), str(row["caption"])) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: is no JSON list of video_id and caption ({type(error).__name__}: {error})") from None


@functools.lru_cache(maxsize=1)
def _tokenizer(source: str) -> ClipTokenizer:
    return load_clip_tokenizer(source)
