"""A digest is that of the rows and their order, wherever they lie and however they are cut."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets import index
from datasets.digest import join_digests, records_digest
from datasets.pairs import PairTable
from datasets.records import QuestionRecord, VideoTextRecord
from datasets.sources import open_source
from tasks.annotations import digest_of, read_split
from tests.tiny_runs import config

ROWS: list[dict[str, Any]] = [
    {"video": "a.mp4", "caption": ["One", "two"]},
    {"video": "b.mp4", "caption": "three", "start": 1.5},
    {"video": "c.jpg", "caption": "four"},
]
CHANGES: dict[str, list[dict[str, Any]]] = {
    "order": ROWS[::-1],
    "text": [*ROWS[:2], ROWS[2] | {"caption": "fore"}],
    "which text is whose": [ROWS[0] | {"caption": "One"}, ROWS[1] | {"caption": ["two", "three"]}, ROWS[2]],
    "where texts are cut": [ROWS[0] | {"caption": ["Onet", "wo"]}, *ROWS[1:]],
    "video": [*ROWS[:2], ROWS[2] | {"video": "d.jpg"}],
    "time": [ROWS[0], ROWS[1] | {"start": 1.0}, ROWS[2]],
}


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    for row in rows:
        (folder / "videos" / row["video"]).touch()
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "captions.jsonl"


def of_index(folder: Path, rows: list[dict[str, Any]]) -> str:
    return open_source(write(folder, rows), folder).digest


def of_run(folder: Path, rows: list[dict[str, Any]]) -> str:
    write(folder, rows)
    settings = config("retrieval", folder)
    return digest_of(settings, read_split(settings, "train"))


@pytest.mark.parametrize("digest", [of_index, of_run])
def test_equal_rows_in_another_folder_and_at_another_time(tmp_path: Path, digest: Any) -> None:
    assert digest(tmp_path / "one", ROWS) == digest(tmp_path / "other", ROWS)


@pytest.mark.parametrize("digest", [of_index, of_run])
@pytest.mark.parametrize("change", CHANGES)
def test_other_rows_that_are_as_many(tmp_path: Path, digest: Any, change: str) -> None:
    assert digest(tmp_path / "before", ROWS) != digest(tmp_path / "after", CHANGES[change])


def test_a_video_that_is_not_there_any_more(tmp_path: Path) -> None:
    before = of_run(tmp_path, ROWS)
    (tmp_path / "videos" / "b.mp4").unlink()
    settings = config("retrieval", tmp_path)
    assert digest_of(settings, read_split(settings, "train")) != before


def test_an_index_knows_the_digest_of_its_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"caption {number}\t{number}.jpg\n" for number in range(50)))
    tables = []
    for rows in (7, 1000):
        monkeypatch.setattr(index, "ROWS_AT_ONCE", rows)
        (tmp_path / str(rows)).mkdir()
        copy = tmp_path / str(rows) / "pairs.tsv"
        copy.write_bytes(path.read_bytes())
        tables.append(open_source(copy, tmp_path))
    in_memory = PairTable.of([VideoTextRecord(f"{number}.jpg", (f"caption {number}",)) for number in range(50)])
    assert tables[0].digest == tables[1].digest == in_memory.digest and tables[0].known_digest is not None
    assert replace(tables[0], known_digest=None).digest == tables[0].digest


def test_answers_and_their_weights_are_trained_on_too() -> None:
    record = QuestionRecord("/v/a.mp4", "what", ("dog", "cat"), (0.5, 0.5), "1")
    others = [
        replace(record, question="who"),
        replace(record, answers=("dog", "cow")),
        replace(record, weights=(0.25, 0.75)),
        replace(record, end=3.0),
    ]
    assert len({records_digest([each], ["a"]) for each in (record, *others)}) == 5
    assert records_digest([replace(record, question_id="2", video="/w/a.mp4")], ["a"]) == records_digest(
        [record], ["a"]
    )


def test_sources_in_another_order() -> None:
    assert join_digests(["a", "b"]) != join_digests(["b", "a"])
