"""The columns of an index hold what its index.jsonl holds, and files are asked for their lengths once."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.decode import seconds
from engine.checkpoint_folder import replacing_folder, write_lines
from inference.features.folder import read_clips
from inference.features.sources import clips_of
from inference.features.windows import Windows, with_windows
from inference.search import durations, table
from inference.search.exact import Vectors
from inference.search.table import VideoTable, open_table, update_table
from tests.videos import grey_steps, write_video


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """The features of some videos with windows, in folders of odd names."""
    videos = tmp_path / "v\u00efdeos"
    (videos / "b").mkdir(parents=True)
    for name, steps in (("a.mp4", 30), ("b/a.mp4", 10), ("b/c.mp4", 20)):
        write_video(videos / name, grey_steps(steps))
    clips = with_windows(clips_of(videos, None), Windows(0.5, 0.25))
    write_features(tmp_path / "index", [clip.row for clip in clips])
    return tmp_path / "index"


def write_features(index: Path, rows: list[dict[str, Any]]) -> None:
    embeddings = np.random.default_rng(len(rows)).standard_normal((len(rows), 4), dtype=np.float32)
    with replacing_folder(index / "features") as new:
        np.save(new / "embeddings.npy", embeddings)
        write_lines(({"row": number, **row} for number, row in enumerate(rows)), new / "index.jsonl")


def rows_of(index: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (index / "features" / "index.jsonl").read_text().splitlines()]


def read(index: Path) -> tuple[VideoTable, Vectors] | None:
    stored = np.load(index / "features" / "embeddings.npy", mmap_mode="r")
    return open_table(index, index / "features", stored)


def test_the_columns_are_the_lines(index: Path) -> None:
    update_table(index, {})
    opened = read(index)
    assert opened is not None
    found, vectors = opened
    clips = read_clips(index / "features" / "index.jsonl")
    assert list(found) == clips and len(clips) > 8
    for row, clip in enumerate(clips):
        assert found.duration[row] == pytest.approx(seconds(clip.video))
        assert [other.video == clip.video for other in clips] == (
            found.video_of_row == found.video_of_row[row]
        ).tolist()
    np.testing.assert_array_equal(vectors.half, vectors.stored.astype(np.float16))
    assert vectors.half is not None
    difference = vectors.stored.astype(np.float64) - vectors.half
    assert vectors.rounding == pytest.approx(np.linalg.norm(difference, axis=1).max())
    assert vectors.norm == pytest.approx(np.linalg.norm(vectors.stored, axis=1).max())


def test_windows_have_the_tags_of_their_video(index: Path) -> None:
    first = rows_of(index)[0]["video"]
    update_table(index, {(first, None, None): ("news",)})
    opened = read(index)
    assert opened is not None
    of_video = [row for row, line in enumerate(rows_of(index)) if line["video"] == first]
    assert opened[0].rows_of_tag("news").tolist() == of_video and len(of_video) > 2
    assert opened[0].tags_of_row == {row: ("news",) for row in of_video}


def test_files_are_opened_once_and_what_changed_again(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(path: str) -> float:
        opened.append(path)
        return 7.0

    monkeypatch.setattr(durations, "_duration", counted)
    update_table(index, {})
    videos = list(dict.fromkeys(row["video"] for row in rows_of(index)))
    assert sorted(opened) == sorted(videos)
    update_table(index, {})
    update_table(index, {(videos[0], None, None): ("new",)})  # other tags: a new table, but no file is opened
    assert len(opened) == len(videos)

    changed = [row | {"size": row["size"] + (row["video"] == videos[1])} for row in rows_of(index)]
    write_features(
        index, [*changed, {"video": "/gone.mp4", "start": None, "end": None, "size": None, "mtime_ns": None}]
    )
    update_table(index, {})
    assert opened[len(videos) :] == [videos[1]]
    found = read(index)
    assert found is not None and np.isnan(found[0].duration[-1]) and (found[0].duration[:-1] == 7).all()


def test_a_table_of_other_features_is_not_used(index: Path) -> None:
    update_table(index, {})
    write_features(index, rows_of(index)[1:])
    assert read(index) is None
    update_table(index, {})
    assert read(index) is not None
    shutil.rmtree(index / "table")
    assert read(index) is None


def test_vectors_too_large_for_float16_are_scanned_as_they_are(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "halve", lambda stored, half: None)
    update_table(index, {})
    opened = read(index)
    assert opened is not None and opened[1].half is None
    assert not (index / "table" / "half.npy").exists()
