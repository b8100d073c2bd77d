"""The command with the tagger that PyPI alone provides, a stand-in for spaCy, and the reference's own file."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from datasets.tags import NOUN, VERB, TagStore, token_codes
from models.parts.clip.tokenizer import ClipTokenizer
from scripts.tag_captions import __main__ as command, taggers

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    # Of whole words it knows `dog` alone; all others are spelled.
    merges = [("d", "o"), ("do", "g</w>")]
    ClipTokenizer(merges).save(tmp_path)

    def run(*options: object) -> int:
        words = [tmp_path / "out.tags", "--tokenizer", tmp_path, "--jobs", 0, *options]
        monkeypatch.setattr(sys, "argv", ["tag_captions", *map(str, words)])
        return command.main()

    return run


def test_each_token_has_the_tag_of_its_word(run: Run, tmp_path: Path) -> None:
    rows = [
        {"video": "a.mp4", "caption": ["A dog runs.", "she cooks soup"]},
        {"video": "b.mp4", "caption": "A dog runs."},
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "more.txt").write_text("women are dancing\n\n")
    assert run("--captions", tmp_path / "train.jsonl") == 0
    assert run("--captions", tmp_path / "train.jsonl", tmp_path / "more.txt") == 0
    store = TagStore(tmp_path / "out.tags")
    assert len(store) == 3
    # a, dog, r u n s, the full stop.
    assert store["A dog runs."].tolist() == [0, NOUN, *[VERB] * 4, 0]
    assert store["she cooks soup"].tolist() == [0] * 3 + [VERB] * 5 + [NOUN] * 4
    assert store["women are dancing"].tolist() == [NOUN] * 5 + [0] * 3 + [VERB] * 7


def test_captions_that_are_there_are_not_tagged_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("a dog\n")
    assert run("--captions", tmp_path / "a.txt") == 0
    asked: list[Any] = []
    tag = taggers.hanta()
    monkeypatch.setattr(taggers, "hanta", lambda: lambda words: asked.extend(words) or tag(words))
    (tmp_path / "a.txt").write_text("a dog\na cat\n")
    assert run("--captions", tmp_path / "a.txt") == 0
    assert asked == [["a", "cat"]]


def test_spacy_with_a_model_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipeline:
        vocab = object()

        def pipe(self, documents: Any) -> Any:
            return (
                [SimpleNamespace(pos_="VERB" if word.endswith("s") else "NOUN") for word in words]
                for words in documents
            )

    library, tokens = ModuleType("spacy"), ModuleType("spacy.tokens")
    library.load = lambda model, exclude: Pipeline()  # type: ignore[attr-defined]
    tokens.Doc = lambda vocab, words: words  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", library)
    monkeypatch.setitem(sys.modules, "spacy.tokens", tokens)
    assert taggers.tagger("spacy:anything")([["dog", "runs"], []]) == [["NOUN", "VERB"], []]
    taggers.spacy.cache_clear()


def test_a_tagger_that_is_not_there_is_named_with_the_remedy(run: Run, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.txt").write_text("a dog\n")
    for name, message in (("spacy:no_model", "--tagger hanta"), ("nltk", "neither hanta nor spacy:MODEL")):
        assert run("--captions", tmp_path / "a.txt", "--tagger", name) == 2
        assert message in capsys.readouterr().err


def test_the_published_file(run: Run, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "train.json").write_text(
        json.dumps([{"video_id": 7, "caption": "dog runs"}, {"video_id": 8, "caption": "dog!?"}])
    )
    path = tmp_path / "postagging_ids_10_new.pth"
    # The second one's exclamation mark has id 0, which the reference drops.
    torch.save([(7, ["NOUN", *["VERB"] * 4]), (8, ["NOUN", "VERB"])], path)
    options = ["--published", path, "--captions", tmp_path / "train.json"]
    assert run(*options) == 0
    store = TagStore(tmp_path / "out.tags")
    assert store["dog runs"].tolist() == [NOUN, *[VERB] * 4] and store["dog!?"].tolist() == [NOUN, 0, VERB]
    for content, message in (
        ([(7, ["NOUN"]), (8, ["NOUN"])], r"entry 0 (7): has 1 tags, and the caption has 5 tokens"),
        ([(8, ["NOUN"]), (7, ["NOUN"])], "the caption in its place"),
        ([(7, ["NOUN"])], "has tags of 1 captions"),
    ):
        torch.save(content, path)
        assert run(*options) == 2
        assert message in capsys.readouterr().err


def test_wrong_lines_are_named(run: Run, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.jsonl").write_text('{"video": "a.mp4", "caption": "a dog"}\n{"video": "a.mp4"}\n')
    assert run("--captions", tmp_path / "a.jsonl") == 2
    assert "a.jsonl:2: " in capsys.readouterr().err
    assert token_codes(["NOUN", "X"], [2, 1]) == [NOUN, NOUN, 0]


def test_words_are_those_of_the_tokenizer() -> None:
    tokenizer = ClipTokenizer([("d", "o"), ("do", "g</w>")])
    text = "A Dog's  <|endoftext|> <|endoftext|> dogs, 42 &amp; more"
    words = tokenizer.words(text)
    names = ["a", "dog", "'s", "<|endoftext|>", "<|endoftext|>", "dogs", ",", "4", "2", "&", "more"]
    assert [word for word, _ in words] == names
    (ids,), _ = tokenizer([text])
    assert sum(count for _, count in words) == len(ids) - 2
