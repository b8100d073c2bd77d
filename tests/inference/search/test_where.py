"""Filters keep the videos that a loop over them keeps, and what cannot be read is named."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.features.sources import Clip
from inference.search import exact
from inference.search.exact import Vectors
from inference.search.index import VideoIndex
from inference.search.table import VideoTable
from inference.search.where import Where

DAY = 86_400 * 10**9


def nanoseconds(year: int, month: int, day: int, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * 10**9


CLIPS = [
    Clip("/data/lectures/a.mp4", None, None, 1, nanoseconds(2023, 12, 31)),
    Clip("/data/lectures/a.mp4", 0.0, 60.0, 1, nanoseconds(2023, 12, 31)),  # its window
    Clip("/data/lectures/old/b.mp4", None, None, 1, nanoseconds(2024, 1, 1)),
    Clip("/data/my lectures/c.mp4", None, None, 1, nanoseconds(2024, 5, 1)),
    Clip("/data/old/d.mp4", 5.0, 9.0, 1, nanoseconds(2024, 1, 1, 12)),
    Clip("/data/lectures.mp4", None, None, None, None),  # missing
]
TAGS = {
    ("/data/lectures/a.mp4", None, None): ("news", "two words"),
    ("/data/old/d.mp4", 5.0, 9.0): ("news",),
    ("/data/my lectures/c.mp4", None, None): ("sport",),
}
TABLE = VideoTable.from_rows((clip.row for clip in CLIPS), TAGS, None)
TABLE.duration[:] = [700, 700, 600, 20, 5400, np.nan]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("folder=lectures", [0, 1, 2]),
        ("folder=lectures/old", [2]),
        ("folder=old", [2, 4]),
        ("folder=/data/old", [4]),
        ("folder=/data", [0, 1, 2, 3, 4, 5]),
        ("folder=/old", []),
        ("folder!=lectures", [3, 4, 5]),
        ('folder="my lectures"', [3]),
        ("tag=news", [0, 1, 4]),
        ("tag=news tag='two words'", [0, 1]),
        ("tag!=news", [2, 3, 5]),
        ("tag=unknown", []),
        ("duration>600", [0, 1, 4]),
        ("duration>=10m", [0, 1, 2, 4]),
        ("duration<600", [3]),
        ("duration<=0.5m", [3]),
        ("duration>=1.5h", [4]),
        ("after=2024-01-01", [2, 3, 4]),
        ("before=2024-01-01", [0, 1]),
        ("after=2024-01-01T12:00 before=2024-02-01", [4]),
        ("after=2024-01-01T13:00+01:00 before=2024-02-01", [4]),
        ("folder=lectures duration>600 tag=news before=2024-01-01", [0, 1]),
    ],
)
def test_conditions_keep_rows(text: str, rows: list[int]) -> None:
    where = Where.parse(text)
    assert (list(range(6)) if where is None else where.rows(TABLE).tolist()) == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lectures", "the filter's part 'lectures' is no condition; write conditions such as folder="),
        ("tag=a colour=red", "the filter's part 'colour=red': there is no 'colour'; filter by folder, tag, duration"),
        ("tag>a", "the filter's part 'tag>a': tag takes = or !=, not >"),
        ("duration=5", "the filter's part 'duration=5': duration takes > or >= or < or <=, not ="),
        ("duration>long", "the filter's part 'duration>long': 'long' is no time; write seconds"),
        ("after=yesterday", "the filter's part 'after=yesterday': 'yesterday' is no date; write 2024-01-31"),
        ("after=2024-13-01", "'2024-13-01' is no date"),
        ("folder=", "the filter's part 'folder=': has no value"),
        ('folder="my', "No closing quotation; close the quotes"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        Where.parse(text)
    assert said in str(error.value)


def test_files_at_addresses_have_folders_but_no_times() -> None:
    clips = [Clip(video, None, None, 1, DAY) for video in ("s3://bucket/a/1.mp4", "https://host/a/2.mp4", "/a/3.mp4")]
    table = VideoTable.from_rows((clip.row for clip in clips), {}, None)
    assert list(table) == clips
    expected = {"folder=a": [0, 1, 2], "folder=bucket/a": [0], "folder=s3://bucket": [0], "before=2000-01-01": [2]}
    for text, rows in expected.items():
        where = Where.parse(text)
        assert where is not None and where.rows(table).tolist() == rows


KEPT: dict[str, Callable[[Clip, float, tuple[str, ...]], bool]] = {
    "folder=b": lambda clip, duration, tags: "/b/" in clip.video,
    "tag=odd duration>500": lambda clip, duration, tags: "odd" in tags and duration > 500,
    "after=1970-01-03 folder!=a": lambda clip, duration, tags: (
        (clip.mtime_ns or 0) >= 2 * DAY and "/a/" not in clip.video
    ),
}


@pytest.mark.parametrize("text", KEPT)
@pytest.mark.parametrize("has_windows", [False, True])
def test_a_filtered_search_equals_a_loop(text: str, has_windows: bool) -> None:
    random = np.random.default_rng(3)
    stored = random.standard_normal((3000, 16), dtype=np.float32)
    videos = [f"/{'abc'[number % 3]}/{number}.mp4" for number in range(1000)]
    clips = [Clip(video, *span, 1, int(random.integers(0, 5 * DAY))) for video in videos for span in SPANS]
    tags: dict[Any, tuple[str, ...]] = {(video, None, None): ("odd",) for video in videos[1::2]}
    table = VideoTable.from_rows((clip.row for clip in clips), tags, None)
    table.duration[:] = np.repeat(random.uniform(0, 1000, 1000), 3)
    half = stored.astype(np.float16)
    rounding, norm = exact.halve(stored, half) or (0.0, 0.0)
    vectors = Vectors(stored, half, rounding, norm)
    index = VideoIndex(Path("/x"), table, vectors, SEARCH, has_windows=has_windows)

    query = random.standard_normal(16, dtype=np.float32)
    rows, scores = index.search(query, 50, Where.parse(text))
    best: list[tuple[float, int, str]] = []
    for row in range(3000):
        has = ("odd",) if int(clips[row].video.split("/")[2][:-4]) % 2 else ()
        if KEPT[text](clips[row], table.duration[row], has):
            score = np.float32(np.dot(stored[row].astype(np.float64), query.astype(np.float64)))
            best.append((-float(score), row, clips[row].video))
    best.sort()
    if has_windows:
        best = list({video: (score, row, video) for score, row, video in reversed(best)}.values())
        best.sort()
    assert rows.tolist() == [row for _, row, _ in best[:50]]
    np.testing.assert_array_equal(scores, np.array([-score for score, _, _ in best[:50]], np.float32))


SPANS = ((None, None), (0.0, 5.0), (5.0, 10.0))
SEARCH: dict[str, Any] = {"checkpoint": "there", "config": None, "overrides": []}
