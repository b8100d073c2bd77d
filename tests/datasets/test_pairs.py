"""Tables of pairs: what is in them, in memory and on disk."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from datasets.pairs import COLUMNS, PackedTexts, PairTable
from datasets.records import QuestionRecord, VideoTextRecord
from datasets.sources import open_source


def test_packed_texts_are_a_list_of_strings() -> None:
    texts = ["", "a dog", "été", "", "\ud800", "last"]
    packed = PackedTexts.of(texts)
    assert [packed[position] for position in range(len(packed))] == list(packed) == texts
    assert len(PackedTexts.of([])) == 0


def test_packed_texts_are_small() -> None:
    packed = PackedTexts.of(f"/videos/{number:08}.mp4" for number in range(1000))
    # 20 bytes of text and 8 of position a string.
    assert len(pickle.dumps(packed)) < 1000 * 28 + 1000


def test_captions_of_a_record_stand_together() -> None:
    records = [VideoTextRecord("/v/a.mp4", ("one", "two")), VideoTextRecord("/v/b.mp4", ("three",), 1.5, None)]
    table = PairTable.of(records)
    assert (len(table), table.num_videos) == (3, 2)
    assert list(table.texts) == ["one", "two", "three"] and table.text_video.tolist() == [0, 0, 1]
    assert [table.path(video) for video in (0, 1)] == ["/v/a.mp4", "/v/b.mp4"]
    assert [table.span(video) for video in (0, 1)] == [(None, None), (1.5, None)]
    assert {name: str(column.dtype) for name, column in table.columns.items()} == COLUMNS


def test_question_number_i_is_text_number_i_and_a_video_is_there_once() -> None:
    asked = [("a", None, "who?"), ("b", None, "where?"), ("a", None, "what?"), ("a", 2.0, "when?"), ("b", None, "who?")]
    table = PairTable.of(
        [QuestionRecord(video, text, ("x",), (1.0,), text, start=start) for video, start, text in asked]
    )
    assert list(table.texts) == [text for _, _, text in asked]
    assert table.text_video.tolist() == [0, 1, 0, 2, 1]
    assert list(table.paths) == ["a", "b", "a"] and table.span(2) == (2.0, None)


def test_a_table_on_disk_equals_the_one_in_memory_and_is_mapped(tmp_path: Path) -> None:
    lines = [
        '{"video": "a.mp4", "caption": ["One!", "zwei \\u00fc"]}',
        '{"video": "/else/b.mp4", "caption": "three", "start": 1.5, "end": 2}',
        '{"video": "a.mp4", "caption": "four"}',
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    table = open_source(tmp_path / "pairs.jsonl", tmp_path / "media")
    same = PairTable.of(
        [
            VideoTextRecord(f"{tmp_path}/media/a.mp4", ("One!", "zwei ü")),
            VideoTextRecord("/else/b.mp4", ("three",), 1.5, 2.0),
            # Rows stay apart: what is trained on is pairs.
            VideoTextRecord(f"{tmp_path}/media/a.mp4", ("four",)),
        ]
    )
    assert list(table.texts) == list(same.texts) and table.text_video.tolist() == same.text_video.tolist()
    assert [table.path(video) for video in range(3)] == [same.path(video) for video in range(3)]
    assert [table.span(video) for video in range(3)] == [same.span(video) for video in range(3)]
    for name, column in table.columns.items():
        if not len(column):  # what is empty cannot be mapped
            assert name in ("members", "shard_bytes", "shard_ends", "shard_states")
            continue
        mapped = column if isinstance(column, np.memmap) else column.base
        assert isinstance(mapped, np.memmap) and mapped.filename is not None, name


def test_a_mapped_table_is_pickled_as_its_place(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"caption number {number}\t{number}.jpg\n" for number in range(5000)))
    table = open_source(tmp_path / "pairs.tsv", tmp_path)
    data = pickle.dumps(table)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert copy.path(4999) == f"{tmp_path}/4999.jpg" and copy.texts[4999] == "caption number 4999"
    assert isinstance(copy.columns["text_bytes"], np.memmap)
    # A worker must not go on with another file's rows.
    (tmp_path / "pairs.tsv").write_text("another\tfile.jpg\n")
    open_source(tmp_path / "pairs.tsv", tmp_path)
    with pytest.raises(ValueError, match="another state of the file"):
        pickle.loads(data)
