"""The tokenizer made from captions, and what every tokenizer here adds to BERT's."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from models.parts.tokenizer import load_tokenizer, make_tokenizer, with_first

CAPTIONS = ("A red circle moves left.", "A blue square spins; a red circle blinks!", "the square moves left")


def test_texts_come_back() -> None:
    tokenizer = make_tokenizer(CAPTIONS, 200)
    ids, mask = tokenizer(CAPTIONS, max_tokens=32)
    assert tokenizer.decode(ids) == [
        "a red circle moves left.",
        "a blue square spins ; a red circle blinks!",
        "the square moves left",
    ]
    for row, kept in zip(ids.tolist(), mask.sum(dim=1).tolist(), strict=True):
        words = row[1 : kept - 1]
        assert (row[0], row[kept - 1]) == (2, tokenizer.sep_id)
        assert row[kept:] == [tokenizer.pad_id] * (len(row) - kept) and tokenizer.pad_id not in words
    assert ids.shape[1] == int(mask.sum(dim=1).max())  # padded to the longest


def test_every_common_word_is_one_token() -> None:
    ids, _ = make_tokenizer(CAPTIONS, 200)(["circle square"], max_tokens=8)
    assert ids.shape == (1, 4)


def test_the_vocabulary_is_a_function_of_the_texts_alone() -> None:
    first, again = make_tokenizer(CAPTIONS, 60), make_tokenizer(reversed(CAPTIONS), 60)
    assert torch.equal(first(CAPTIONS, 64)[0], again(CAPTIONS, 64)[0])
    assert len(first) == len(again) == 60


def test_words_without_room_are_spelled() -> None:
    small = make_tokenizer(CAPTIONS, len(make_tokenizer(CAPTIONS, 10_000)) - 1)  # one word fewer: the last by count
    ids, _ = small(["the"], max_tokens=8)
    assert small.decode(ids) == ["the"]
    shortest = make_tokenizer(["ab ab cd"], 5 + 8 + 2 + 1)
    assert [len(shortest([word], 8)[0][0]) - 2 for word in ("ab", "cd")] == [1, 2]


def test_unseen_characters_are_unknown() -> None:
    tokenizer = make_tokenizer(CAPTIONS, 200)
    unknown = 1
    assert tokenizer(["é 7 zebra"], max_tokens=8)[0].tolist() == [
        [2, *tokenizer(["e"], 8)[0][0, 1:2].tolist(), unknown, unknown, 3]
    ]
    assert tokenizer(["\u4e2d red"], max_tokens=8)[0][0, 1] == unknown


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="model.text.vocab_size: 14 is too few for the 4 characters"):
        make_tokenizer(["ab cd"], 5 + 8 + 2 - 1)
    assert len(make_tokenizer(["ab cd"], 5 + 8 + 2)) == 15


def test_long_texts_are_cut_and_still_end() -> None:
    ids, mask = make_tokenizer(CAPTIONS, 200)([" ".join(CAPTIONS)], max_tokens=6)
    assert ids.shape == (1, 6) and ids[0, -1] == 3 and mask.all()


def test_dec_and_enc_come_last_and_are_never_words() -> None:
    tokenizer = make_tokenizer(CAPTIONS, 200)
    assert {tokenizer.dec_id, tokenizer.enc_id} == {len(tokenizer) - 2, len(tokenizer) - 1}
    ids = torch.tensor([[tokenizer.dec_id, *tokenizer(["red circle"], 8)[0][0, 1:].tolist(), tokenizer.pad_id]])
    assert tokenizer.decode(ids) == ["red circle"]


def test_bert_base_uncased_would_give_dec_30522_and_enc_30523(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "circle", *(f"word{i}" for i in range(30515))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    tokenizer = load_tokenizer(str(tmp_path))
    assert (tokenizer.dec_id, tokenizer.enc_id, len(tokenizer)) == (30522, 30523, 30524)
    assert tokenizer(["Red circle"], 8)[0].tolist() == [[2, 5, 6, 3]]


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(CAPTIONS, 80)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert torch.equal(loaded(CAPTIONS, 32)[0], tokenizer(CAPTIONS, 32)[0])
    assert (loaded.dec_id, loaded.enc_id, len(loaded)) == (tokenizer.dec_id, tokenizer.enc_id, len(tokenizer))


def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model.text.tokenizer: .* holds neither tokenizer.json nor vocab.txt"):
        load_tokenizer(str(tmp_path))


def test_with_first_leaves_its_input_alone() -> None:
    ids = torch.tensor([[2, 7, 3], [2, 8, 3]])
    assert with_first(ids, 9).tolist() == [[9, 7, 3], [9, 8, 3]]
    assert ids[:, 0].tolist() == [2, 2]


def test_written_texts_are_as_people_write_them() -> None:
    text = "the man's t-shirt isn't here, is it? 3.5 of 1,000 (or so) at 10:30; and/or 50%. he'll go."
    tokenizer = make_tokenizer([text, "'mid"], 100)
    ids, _ = tokenizer([text], 100)
    assert tokenizer.written(ids) == [text] and tokenizer.decode(ids) != [text]


def test_code_beside_a_tokenizer_is_never_run(tmp_path: Path) -> None:
    make_tokenizer(["a red circle"], 60).save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    asked = {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}, "tokenizer_class": "Own"}
    path.write_text(json.dumps(json.loads(path.read_text()) | asked))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    with suppress(ValueError):
        load_tokenizer(str(tmp_path))
    assert not (tmp_path / "ran").exists()
