"""CLIP's tokenizer: byte-pair encoding of cleaned, lower-case text, from OpenAI's vocabulary file alone.

The vocabulary is 256 bytes, the same 256 as word ends, one entry per merge, and the start and end tokens. OpenCLIP's
copy gives the same ids; the two differ in how they spell the start and end tokens, should a text contain those words.
"""

import gzip
import html
import importlib.util
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor

from models.parts.marks import join_marks

VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
MERGES_READ = 48894
"""Only this many merges of OpenAI's file are used, which makes 49408 tokens."""
OPEN_CLIP = "open_clip_torch"
"""In place of a path: the file in the Python package of this name, which need not be importable."""
END_OF_WORD = "</w>"
SPECIAL = {
    "openai": ("<|startoftext|>", "<|endoftext|>"),
    "openclip": ("<start_of_text>", "<end_of_text>"),
}
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
PAD_ID = 0

Merge = tuple[str, str]


class ClipTokenizer:
    """Texts to CLIP's token ids.

    Args:
        merges: pairs of pieces, most frequent first.
        spelling: how the start and end tokens are spelled: `openai`, or `openclip` for models of that project.
    """

    def __init__(self, merges: Sequence[Merge], spelling: Literal["openai", "openclip"] = "openai") -> None:
        self.merges, self.spelling = list(merges), spelling
        alphabet = byte_alphabet()
        tokens = [*alphabet, *(character + END_OF_WORD for character in alphabet)]
        tokens += [first + second for first, second in self.merges]
        self.start_id, self.end_id, self.pad_id = len(tokens), len(tokens) + 1, PAD_ID
        tokens += SPECIAL[spelling]

        self._tokens = tokens
        self._byte_of = {character: byte for byte, character in zip(_byte_order(), alphabet, strict=True)}
        vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
        self._tokenizer = Tokenizer(BPE(vocabulary, self.merges, end_of_word_suffix=END_OF_WORD))
        self._tokenizer.pre_tokenizer = _pre_tokenizer()
        self._tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL[spelling]])

    def __len__(self) -> int:
        return len(self._tokens)

    def __call__(self, texts: Sequence[str], max_tokens: int = 77, pad_to_max: bool = False) -> tuple[Tensor, Tensor]:
        """Ids and mask, both int64 (P, S): start, words, end, and then 0; S is that of the longest text.

        Longer texts are cut to `max_tokens`, the last of which is the end token. With `pad_to_max`, S is `max_tokens`.
        """
        encodings = self._tokenizer.encode_batch([clean(text) for text in texts], add_special_tokens=False)
        rows = [[self.start_id, *encoding.ids[: max_tokens - 2], self.end_id] for encoding in encodings]
        length = max_tokens if pad_to_max else max(map(len, rows), default=0)

        ids = torch.full((len(rows), length), PAD_ID)
        mask = torch.zeros((len(rows), length), dtype=torch.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return ids, mask

    def words(self, text: str) -> list[tuple[str, int]]:
        """The words that a cleaned text is split into, each with how many tokens it becomes."""
        cleaned = clean(text)
        encoding = self._tokenizer.encode(cleaned, add_special_tokens=False)
        spans: dict[int, tuple[int, int, int]] = {}
        for position, (number, (begin, end)) in enumerate(zip(encoding.word_ids, encoding.offsets, strict=True)):
            # A start or end token that is spelled in the text is no part of a word.
            word = -1 - position if number is None else number
            first, last, count = spans.get(word, (begin, end, 0))
            spans[word] = min(first, begin), max(last, end), count + 1
        return [(cleaned[begin:end], count) for begin, end, count in spans.values()]

    def decode(self, ids: Tensor) -> list[str]:
        """Texts of ids (P, S): what stands between start and end, its words a space apart.

        A model's table may have more rows than there are tokens; those are left out.
        """
        return [self._decode_row(row) for row in ids.tolist()]

    def written(self, ids: Tensor) -> list[str]:
        """Decode as people write: no space before punctuation, or within `don't`, `t-shirt` and `3.5`."""
        return [join_marks(text) for text in self.decode(ids)]

    def _decode_row(self, row: list[int]) -> str:
        if self.end_id in row:
            row = row[: row.index(self.end_id)]
        known = [token_id for token_id in row if token_id < len(self._tokens) and token_id != self.start_id]
        pieces = "".join(self._tokens[token_id] for token_id in known)
        words = pieces.removesuffix(END_OF_WORD).split(END_OF_WORD)
        decoded = (bytes(self._byte_of[character] for character in word) for word in words)
        return " ".join(word.decode("utf-8", errors="replace") for word in decoded)

    def save(self, folder: Path) -> None:
        """Write the vocabulary into `folder`, from which `load_clip_tokenizer` reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["#version: 0.2", *(" ".join(merge) for merge in self.merges), ""]
        # Without the time in its header, equal vocabularies make equal files.
        with (folder / VOCABULARY_FILE).open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            file.write("\n".join(lines).encode())


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Words, numbers and marks apart, as the characters that stand for their bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def clean(text: str) -> str:
    """What CLIP does to a text first: mend its encoding, resolve HTML entities, join white space, lower-case.

    ValueError if the text is not plain ASCII and the package ftfy, which mends encodings, is not installed.
    """
    plain = text.isascii() and text.isprintable() and "&" not in text and "<" not in text
    if not plain:
        text = html.unescape(html.unescape(fix_encoding(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def fix_encoding(text: str) -> str:
    """Mend mojibake, curly quotes, ligatures and the like, as CLIP's vocabulary expects."""
    try:
        import ftfy
    except ImportError as error:
        raise ValueError(f"the text {text!r} needs the package ftfy: pip install ftfy") from error
    return ftfy.fix_text(text)


def load_clip_tokenizer(source: str, spelling: Literal["openai", "openclip"] = "openai") -> ClipTokenizer:
    """Load from OpenAI's vocabulary file, a folder with it, or `open_clip_torch`, the package that ships it.

    ValueError if there is no such file, or if it holds something else than merges.
    """
    path = vocabulary_path(source)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = content.decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as CLIP's vocabulary file: {error}") from error

    # The first line is a comment.
    merges = [_merge_of(line, path, number) for number, line in enumerate(lines[1 : MERGES_READ + 1], 2) if line]
    # A vocabulary learned from few texts may have none; its header still says what it is.
    if not merges and "#version" not in lines[0]:
        raise ValueError(f"{path}: holds no merges; OpenAI's {VOCABULARY_FILE} has 262,144 lines of two pieces each")
    _check_pieces(merges, path)
    return ClipTokenizer(merges, spelling)


def make_clip_tokenizer(texts: Iterable[str], vocab_size: int) -> ClipTokenizer:
    """A tokenizer of at most `vocab_size` tokens whose merges are learned from `texts`.

    Repeatedly merges the commonest pair of neighbouring pieces. Equally common pairs are ordered alphabetically, so
    equal texts give equal ids. ValueError if the bytes alone are more than `vocab_size`.
    """
    room = vocab_size - 2 * len(byte_alphabet()) - len(SPECIAL["openai"])
    if room < 0:
        raise ValueError(
            f"model.text.vocab_size: {vocab_size} is too few; CLIP's 512 bytes and 2 special tokens need 514"
        )

    # Count the words, each as a tuple of its pieces, at first single bytes.
    splitter = _pre_tokenizer()
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        for word, _ in splitter.pre_tokenize_str(clean(text)):
            counts[(*word[:-1], word[-1] + END_OF_WORD)] += 1

    merges: list[Merge] = []
    while len(merges) < room:
        # Count the pairs, weighted by how often their word occurs.
        pairs: Counter[Merge] = Counter()
        for pieces, count in counts.items():
            for pair in itertools.pairwise(pieces):
                pairs[pair] += count
        if not pairs:
            break

        # Merge the commonest pair in every word.
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for pieces, count in counts.items():
            merged[_merged(pieces, best)] += count
        counts = merged
    return ClipTokenizer(merges)


# What `models.systems` asks of a module with a tokenizer.
load_tokenizer, make_tokenizer = load_clip_tokenizer, make_clip_tokenizer


def _merged(word: tuple[str, ...], pair: Merge) -> tuple[str, ...]:
    """The word with each occurrence of the pair, from the left, as one piece."""
    pieces: list[str] = []
    index = 0
    while index < len(word):
        is_pair = word[index : index + 2] == pair
        pieces.append(word[index] + word[index + 1] if is_pair else word[index])
        index += 2 if is_pair else 1
    return tuple(pieces)


def vocabulary_path(source: str) -> Path:
    """Where `load_clip_tokenizer` reads its vocabulary."""
    if source == OPEN_CLIP and not Path(source).exists():
        found = importlib.util.find_spec("open_clip")
        if found is None or found.origin is None:
            raise ValueError(f"the package {OPEN_CLIP} is not installed: pip install --no-deps {OPEN_CLIP}")
        return Path(found.origin).parent / VOCABULARY_FILE

    path = Path(source)
    if path.is_dir():
        path = path / VOCABULARY_FILE
    if not path.is_file():
        raise ValueError(
            f"{path}: there is no such file; name OpenAI's {VOCABULARY_FILE}, a folder with it, or {OPEN_CLIP}"
        )
    return path


def byte_alphabet() -> list[str]:
    """The character that stands for each byte, in GPT-2's order: printable bytes first, then the others."""
    return [chr(byte) if byte in _PRINTABLE else chr(256 + _OTHERS.index(byte)) for byte in _byte_order()]


def _byte_order() -> list[int]:
    return [*_PRINTABLE, *_OTHERS]


_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]


def _merge_of(line: str, path: Path, number: int) -> Merge:
    pieces = line.split()
    if len(pieces) != 2:
        raise ValueError(f"{path}:{number}: found {line[:80]!r}, not two pieces to merge; it is no vocabulary of CLIP")
    return pieces[0], pieces[1]


def _check_pieces(merges: Iterable[Merge], path: Path) -> None:
    """Every piece has to be a byte, or what an earlier line made."""
    alphabet = byte_alphabet()
    known = {*alphabet, *(character + END_OF_WORD for character in alphabet)}
    for number, (first, second) in enumerate(merges, 2):
        if first not in known or second not in known:
            unknown = first if first not in known else second
            raise ValueError(f"{path}:{number}: nothing above makes the piece {unknown!r}; the file is damaged")
        known.add(first + second)
