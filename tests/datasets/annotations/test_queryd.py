"""QuerYD: names, captions in pieces, and a pickle that is not to be trusted."""

import os
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from datasets.annotations import plain_pickle, queryd
from datasets.records import VideoTextRecord
from tests.datasets.annotations.folders import error_of, touch

CAPTIONS = {
    "video-b": [["A", "man", ","], ["he", "waves", "."]],
    "video-a": [("two", "dogs")],
    "video-c": [[], ["one"]],
    "unlisted": [],
}


def folder_of(root: Path, names: str = "video-a\nvideo-b\n", captions: object = CAPTIONS) -> Path:
    (root / "exists_test_list.txt").write_text(names)
    (root / "raw_captions_combined_filtered.pkl").write_bytes(pickle.dumps(captions))
    return root


def test_all_tokens_of_a_video_in_the_order_of_the_list(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "video-a.mkv", "video-b", "video-b.part")
    annotations = queryd.read(folder_of(tmp_path, "video-b \r\n\nvideo-a\nvideo-c"), "test", tmp_path / "videos")
    assert annotations.records == [
        VideoTextRecord(str(tmp_path / "videos/video-b"), ("A man , he waves .",)),
        VideoTextRecord(str(tmp_path / "videos/video-a.mkv"), ("two dogs",)),
        VideoTextRecord(str(tmp_path / "videos/video-c"), (" one",)),
    ]
    assert (annotations.dataset, annotations.split, annotations.labelled) == ("queryd", "test", True)
    assert "exists_test_list.txt, raw_captions_combined_filtered.pkl" in annotations.source


@pytest.mark.parametrize(
    ("names", "captions", "file", "found"),
    [
        ("", CAPTIONS, "exists_test_list.txt", ": the file is empty"),
        ("video-a\n\nvideo-a\n", CAPTIONS, "exists_test_list.txt", ":3: 'video-a' stands in an earlier line too"),
        ("video-a\nvideo-x\n", CAPTIONS, "exists_test_list.txt", ":2: no captions of 'video-x' in "),
        ("video-a", [CAPTIONS], "raw_captions_combined_filtered.pkl", ": found list, not a dict"),
        ("a", {"a": "text"}, "raw_captions_combined_filtered.pkl", ": 'a': captions are 'text', not lists"),
        ("a", {"a": ["text"]}, "raw_captions_combined_filtered.pkl", ": 'a': captions are ['text'], not lists"),
        ("a", {"a": [["b", 3]]}, "raw_captions_combined_filtered.pkl", ": 'a': captions are [['b', 3]], not lists"),
        ("a", {"a": None}, "raw_captions_combined_filtered.pkl", ": 'a': captions are None, not lists"),
        ("a", {"a": [["", " "]]}, "raw_captions_combined_filtered.pkl", ": 'a': the captions have no words"),
    ],
)
def test_bad_files(tmp_path: Path, names: str, captions: object, file: str, found: str) -> None:
    folder_of(tmp_path, names, captions)
    text = error_of(lambda: queryd.read(tmp_path, "test", tmp_path))
    assert text.startswith(f"{tmp_path / file}{found}")


def test_captions_of_python_2(tmp_path: Path) -> None:
    folder_of(tmp_path, "a")
    # What `{'a': [['caf\xc3\xa9']]}` was under Python 2, protocol 2.
    content = b"\x80\x02}q\x00U\x01aq\x01]q\x02]q\x03U\x05caf\xc3\xa9q\x04aas."
    (tmp_path / "raw_captions_combined_filtered.pkl").write_bytes(content)
    assert queryd.read(tmp_path, "test", tmp_path).records[0].captions == ("café",)


class Runs:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, captions=CAPTIONS | {"video-x": Runs(tmp_path / "proof")})
    text = error_of(lambda: queryd.read(tmp_path, "test", tmp_path))
    assert text.startswith(f"{tmp_path / 'raw_captions_combined_filtered.pkl'}: the pickle asks for posix.system")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(("split", "videos"), [("train", 2048), ("val", 438)])
def test_real_lists_and_the_real_pickles_kind(real_data: Path, tmp_path: Path, split: str, videos: int) -> None:
    """The captions, which are not to be had, are made up, for the videos of the real times and in their form."""
    root = real_data / "annotations/queryd"
    times = plain_pickle.load(root / "times_captions_combined_filtered-v2.pkl")
    captions = defaultdict(list, {name: [["said", str(span[0])] for span in spans] for name, spans in times.items()})
    (tmp_path / f"exists_{split}_list.txt").symlink_to(root / f"{split}_list.txt")
    (tmp_path / "raw_captions_combined_filtered.pkl").write_bytes(pickle.dumps(captions, 3))
    records = queryd.read(tmp_path, split, Path("/videos")).records
    assert len(records) == len({record.video for record in records}) == videos
    assert all(record.captions[0].startswith("said ") for record in records)
