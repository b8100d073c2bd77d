"""UMT's tokenizer: BERT's, without tokens of its own."""

from collections.abc import Iterable

from models.parts import tokenizer
from models.parts.tokenizer import TextTokenizer


def load_tokenizer(folder: str) -> TextTokenizer:
    """Load from a folder of this machine; code that lies in it never runs, and nothing is fetched."""
    return tokenizer.load_tokenizer(folder, added=())


def make_tokenizer(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """A WordPiece tokenizer of at most `vocab_size` entries, made of the texts; see `models.parts.tokenizer`."""
    return tokenizer.make_tokenizer(texts, vocab_size, added=())
