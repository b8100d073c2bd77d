"""Text to WordPiece ids and back.

BLIP's models add two tokens: [DEC] starts a caption, [ENC] a text that attends to video.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer as WordPieceTokenizer, decoders
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from models.parts.marks import join_marks

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FROM_DATA = "from_data"
BLIP_TOKENS = ("[DEC]", "[ENC]")


class TextTokenizer:
    """BERT's tokenizer with [DEC] and [ENC]; texts are padded to the longest of their batch.

    Args:
        tokenizer: a BERT-style tokenizer; the `added` tokens are added if it lacks them (ids 30522 and 30523 for
            bert-base-uncased).
        added: BLIP's two tokens, or none; without them there is neither `dec_id` nor `enc_id`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, added: tuple[str, ...] = BLIP_TOKENS) -> None:
        if added:
            if tokenizer.bos_token != "[DEC]":
                tokenizer.add_special_tokens({"bos_token": "[DEC]"})
            tokenizer.add_tokens(["[ENC]"], special_tokens=True)
            self.dec_id, self.enc_id = _id(tokenizer, "[DEC]"), _id(tokenizer, "[ENC]")
        self._tokenizer = tokenizer
        self.pad_id, self.sep_id = _id(tokenizer, "[PAD]"), _id(tokenizer, "[SEP]")

    def __len__(self) -> int:
        return len(self._tokenizer)

    @property
    def mask_id(self) -> int:
        """The id of [MASK], which stands for a word to guess."""
        return _id(self._tokenizer, "[MASK]")

    def __call__(self, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
        """Ids (B, S) and mask (B, S), int64: [CLS] words [SEP], cut to `max_tokens`, padded to the longest."""
        encoded = self._tokenizer(
            list(texts), padding="longest", truncation=True, max_length=max_tokens, return_tensors="pt"
        )
        return encoded["input_ids"], encoded["attention_mask"]

    def decode(self, ids: Tensor) -> list[str]:
        """Texts of ids (B, S), without special tokens."""
        return [text.strip() for text in self._tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def written(self, ids: Tensor) -> list[str]:
        """Decode as people write: no space before punctuation, or within `don't`, `t-shirt` and `3.5`.

        Ids do not store spaces, so a mark that did stand apart is joined too.
        """
        return [join_marks(text) for text in self.decode(ids)]

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into `folder`, from which `load_tokenizer` reads them."""
        self._tokenizer.save_pretrained(folder)


def load_tokenizer(folder: str, added: tuple[str, ...] = BLIP_TOKENS) -> TextTokenizer:
    """Load from a local folder; never runs code from it, and downloads nothing."""
    if not any((Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise ValueError(f"model.text.tokenizer: {folder} holds neither tokenizer.json nor vocab.txt")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return TextTokenizer(tokenizer, added)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"model.text.tokenizer: {folder} holds no tokenizer that can be read: {reason}") from error


def make_tokenizer(texts: Iterable[str], vocab_size: int, added: tuple[str, ...] = BLIP_TOKENS) -> TextTokenizer:
    """A WordPiece tokenizer of at most `vocab_size` entries: the characters of `texts`, then their commonest words.

    Other words are spelled in characters. Equal counts are ordered alphabetically, so equal texts give equal ids.
    """
    # Count the words, split as BERT splits them.
    normalizer, pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)))

    # Every character gets two entries, at the start of a word and inside it, so that any word can be spelled.
    characters = sorted({character for word in words for character in word})
    pieces = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    room = vocab_size - len(pieces) - len(added)
    if room < 0:
        raise ValueError(
            f"model.text.vocab_size: {vocab_size} is too few for the {len(characters)} characters of the captions"
        )

    # The commonest words fill the rest.
    by_count = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))
    vocabulary = {piece: index for index, piece in enumerate([*pieces, *by_count[:room]])}

    tokenizer = WordPieceTokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, pre_tokenizer, decoders.WordPiece()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    )
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named), added)


def with_first(ids: Tensor, token_id: int) -> Tensor:
    """A copy of ids (B, S) with another first token."""
    return torch.cat([torch.full_like(ids[:, :1], token_id), ids[:, 1:]], dim=1)


def _id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(token_id, int) or token_id == tokenizer.unk_token_id:
        raise ValueError(f"model.text.tokenizer: its vocabulary has no {token}; a BERT WordPiece vocabulary is needed")
    return token_id
