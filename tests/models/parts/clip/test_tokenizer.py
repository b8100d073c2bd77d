"""CLIP's tokenizer: ids of the original, and vocabulary files that are refused."""

import gzip
from pathlib import Path

import pytest
import torch

from models.parts.clip.tokenizer import (
    VOCABULARY_FILE,
    ClipTokenizer,
    clean,
    load_clip_tokenizer,
    make_clip_tokenizer,
    vocabulary_path,
)
from tests.parity.cases import read_case

CASE = Path(__file__).parents[3] / "parity" / "golden" / "tvts" / "tvts_tokens.safetensors"
MERGES = [("t", "h"), ("th", "e</w>"), ("c", "a"), ("ca", "t</w>")]


def write_vocabulary(folder: Path, lines: list[str]) -> Path:
    path = folder / VOCABULARY_FILE
    path.write_bytes(gzip.compress("\n".join(["#version: 0.2", *lines, ""]).encode()))
    return path


@pytest.fixture
def original(real_data: Path) -> ClipTokenizer:
    return load_clip_tokenizer(str(real_data / "tokenizers" / "clip"))


def test_ids_of_openai(original: ClipTokenizer) -> None:
    """Of its own code, by the notes beside the vocabulary."""
    expected = {
        "a photo of a cat": [320, 1125, 539, 320, 2368],
        "a person is playing guitar": [320, 2533, 533, 1629, 5084],
        "hello world!": [3306, 1002, 256],
    }
    assert (len(original), original.start_id, original.end_id) == (49408, 49406, 49407)
    ids, mask = original(list(expected))
    for row, real, words in zip(ids.tolist(), mask.tolist(), expected.values(), strict=True):
        assert row[: sum(real)] == [49406, *words, 49407] and not any(row[sum(real) :])


@pytest.mark.parametrize(("spelling", "output"), [("openai", "clip_ids"), ("openclip", "openclip_ids")])
def test_ids_of_odd_texts(real_data: Path, spelling: str, output: str) -> None:
    case = read_case(CASE)
    tokenizer = load_clip_tokenizer(str(real_data / "tokenizers" / "clip"), spelling)
    ids, _ = tokenizer(case.meta["texts"], case.meta["context"], pad_to_max=True)
    assert torch.equal(ids, case.tensors[output])


def test_decoding_gives_clean_text_back(original: ClipTokenizer) -> None:
    texts = ["a person riding a bike", "café naïve", "😀 emoji"]
    assert original.decode(original(texts)[0]) == texts


def test_small_vocabulary_by_hand(tmp_path: Path) -> None:
    tokenizer = ClipTokenizer(MERGES)
    # 512 bytes, then the merges: the</w> is number 513, cat</w> 515; "s" at the end of a word is 256 + 82.
    assert (tokenizer.start_id, tokenizer.end_id, len(tokenizer)) == (516, 517, 518)
    ids, mask = tokenizer(["The  cats", "the"], max_tokens=77)
    assert ids.tolist() == [[516, 513, 514, 83, 338, 517], [516, 513, 517, 0, 0, 0]]
    assert mask.tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert tokenizer(["the cat the cat"], max_tokens=4)[0].tolist() == [[516, 513, 515, 517]]
    assert tokenizer(["the"], max_tokens=5, pad_to_max=True)[0].tolist() == [[516, 513, 517, 0, 0]]

    tokenizer.save(tmp_path)
    again = load_clip_tokenizer(str(tmp_path))
    assert torch.equal(again(["the cats"])[0], tokenizer(["the cats"])[0])


def test_merges_are_learned_from_texts_by_hand(tmp_path: Path) -> None:
    # "low" three times and "lower" once: "l o" and "o w..." are equally common in none, "l o" is in all four.
    tokenizer = make_clip_tokenizer(["low low low", "Lower"], vocab_size=514 + 3)
    assert tokenizer.merges == [("l", "o"), ("lo", "w</w>"), ("e", "r</w>")]
    assert len(tokenizer) == 517
    everything = make_clip_tokenizer(["low low low", "Lower"], vocab_size=1000)
    ids, _ = everything(["lower low"])
    assert ids.shape[1] == 4 and everything.decode(ids) == ["lower low"]
    everything.save(tmp_path)
    assert torch.equal(load_clip_tokenizer(str(tmp_path))(["lower x"])[0], everything(["lower x"])[0])
    with pytest.raises(ValueError, match="vocab_size: 500 is too few"):
        make_clip_tokenizer(["a"], 500)


def test_every_text_can_be_written_with_a_small_vocabulary() -> None:
    tokenizer = make_clip_tokenizer(["a cat"], vocab_size=520)
    texts = ["日本語 и ещё", "don't 12"]
    assert tokenizer.decode(tokenizer(texts)[0]) == ["日本語 и ещё", "don 't 1 2"]


def test_cleaning_by_hand() -> None:
    assert clean("It’s  a &amp;lt; ﬁSH\n") == "it's a < fish"
    assert clean("  Two  words ") == "two words"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["t h", "three pieces here"], r":3: found 'three pieces here', not two pieces"),
        (["t h", "xx e"], r":3: nothing above makes the piece 'xx'"),
    ],
)
def test_damaged_vocabularies_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_clip_tokenizer(str(write_vocabulary(tmp_path, lines)))


def test_a_vocabulary_of_bytes_alone_is_saved_and_read(tmp_path: Path) -> None:
    make_clip_tokenizer(["a"], 514).save(tmp_path)
    assert len(load_clip_tokenizer(str(tmp_path))) == 514
    (tmp_path / VOCABULARY_FILE).write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match="holds no merges"):
        load_clip_tokenizer(str(tmp_path))


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file; name OpenAI's"):
        load_clip_tokenizer(str(tmp_path))
    (tmp_path / VOCABULARY_FILE).write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="cannot be read as CLIP's vocabulary file"):
        load_clip_tokenizer(str(tmp_path))


def test_the_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "open_clip"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_vocabulary(package, [" ".join(merge) for merge in MERGES])
    with pytest.raises(ValueError, match="pip install"):
        vocabulary_path("open_clip_torch")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(load_clip_tokenizer("open_clip_torch")) == 518
