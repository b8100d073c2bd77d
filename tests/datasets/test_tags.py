"""Tags by caption: written, added to, cut with the text; other files are refused."""

from pathlib import Path

import pytest
import torch

from datasets.pairs import PackedTexts
from datasets.tags import NOUN, VERB, TagStore, codes_of, read_published, save_tags


def test_tags_are_found_by_text_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "a.tags"
    save_tags(path, {"a dog runs": codes_of(["DET", "NOUN", "VERB"]), "": []})
    save_tags(path, {"two cats": codes_of(["NUM", "NOUN"]), "a dog runs": [0, 1, 1]})
    store = TagStore(path)
    assert len(store) == 3 and store["a dog runs"].tolist() == [0, NOUN, NOUN] and store[""].tolist() == []
    assert (store.num_tokens, store.count(NOUN), store.count(VERB)) == (5, 3, 0)
    with pytest.raises(KeyError, match=r"no tags of 'A dog runs'; .*scripts\.tag_captions"):
        store["A dog runs"]


def test_masks_stand_behind_the_start_token_and_are_cut_with_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tags"
    save_tags(path, {"a dog runs": [0, NOUN, VERB], "cats": [NOUN]})
    noun, verb = TagStore(path).masks(["a dog runs", "cats"], [5, 3], max_tokens=77)
    assert noun.tolist() == [[False, False, True, False, False], [False, True, False, False, False]]
    assert verb.tolist() == [[False, False, False, True, False], [False] * 5]
    noun, verb = TagStore(path).masks(["a dog runs"], [4], max_tokens=4)  # start, two words, end
    assert noun.tolist() == [[False, False, True, False]] and not verb.any()
    with pytest.raises(ValueError, match=r"a\.tags: has 3 tags of 'a dog runs', which is 4 tokens here; .*vocabulary"):
        TagStore(path).masks(["a dog runs"], [6], max_tokens=77)
    with pytest.raises(ValueError, match=r"a\.tags: has no tags of 'dogs'"):
        TagStore(path).check(PackedTexts.of(["cats", "dogs"]))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file; .*scripts\.tag_captions"):
        TagStore(tmp_path / "a.tags")
    (tmp_path / "a.tags").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no file of scripts.tag_captions"):
        TagStore(tmp_path / "a.tags")


def test_published_files_are_read_as_plain_data(tmp_path: Path) -> None:
    path = tmp_path / "postagging_ids_10_new.pth"
    torch.save([(7, ["NOUN", "VERB"]), ("x", [])], path)
    assert read_published(path) == [("7", ["NOUN", "VERB"]), ("x", [])]
    for content, message in (
        ({"a": 1}, "holds dict"),
        ([(7, "NOUN")], r"entry 0 \(7\): has no list of tags"),
        ([(7, [1])], "no list of tags"),
        ([7], "entry 0: is no pair"),
        ([Path("x")], "nothing of it was run"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            read_published(path)
