"""What is exported is read back by the libraries it is for."""

import importlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.features.sources import Clip
from inference.search import export as export_module
from inference.search.exact import Vectors
from inference.search.export import export
from inference.search.index import VideoIndex
from inference.search.table import VideoTable

COUNT, WIDTH = 300, 8
CLIPS = [
    Clip(f"/v/{number}é.mp4", *((None, None) if number % 2 else (1.5, 4.0)), 100 + number, 10**18 + number)
    for number in range(COUNT - 1)
] + [Clip("/v/gone\udcff.mp4", None, None, None, None)]


@pytest.fixture
def index() -> VideoIndex:
    stored = np.random.default_rng(0).standard_normal((COUNT, WIDTH), dtype=np.float32)
    tags = {("/v/1é.mp4", None, None): ("news", "red"), ("/v/2é.mp4", 1.5, 4.0): ("red",)}
    table = VideoTable.from_rows((clip.row for clip in CLIPS), tags, None)
    table.duration[:10] = 12.5
    return VideoIndex(Path("/x"), table, Vectors(stored), {"checkpoint": "c", "config": None, "overrides": []})


def check(rows: list[dict[str, Any]], index: VideoIndex) -> None:
    assert [row["row"] for row in rows] == list(range(COUNT))
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], np.float32), index.embeddings)
    for row, clip in zip(rows[:-1], CLIPS[:-1], strict=True):
        assert (row["video"], row["start"], row["end"], row["size"]) == (clip.video, clip.start, clip.end, clip.size)
    assert [rows[number]["tags"] for number in range(4)] == [[], ["news", "red"], ["red"], []]
    assert [rows[number]["duration"] for number in (0, 9, 10)] == [12.5, 12.5, None]
    assert (rows[-1]["video"], rows[-1]["size"], rows[-1]["modified"]) == ("/v/gone\ufffd.mp4", None, None)


def test_parquet_holds_every_row(index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "ROWS_AT_ONCE", 128)
    assert export(index, tmp_path / "out.parquet") == COUNT
    table = importlib.import_module("pyarrow.parquet").read_table(tmp_path / "out.parquet")
    moment = table["modified"][0].as_py()
    assert (
        moment.to_pydatetime()
        if hasattr(moment, "to_pydatetime")
        else moment == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    )
    rows = table.drop_columns(["modified"]).to_pylist()
    rows = [row | {"modified": time} for row, time in zip(rows, table["modified"].is_valid().to_pylist(), strict=True)]
    rows[-1]["modified"] = None if rows[-1]["modified"] is False else True
    check(rows, index)
    with pytest.raises(ValueError, match="exists; remove it, or give another name"):
        export(index, tmp_path / "out.parquet")


READ_LANCE = """
import json, sys, lancedb
table = lancedb.connect(sys.argv[1]).open_table(sys.argv[2])
rows = table.to_arrow().drop_columns(["modified"]).to_pylist()
near = table.search(rows[5]["embedding"], vector_column_name="embedding").limit(1).to_list()[0]["row"]
print(json.dumps({"rows": rows, "near": near, "imported": "datasets" in sys.modules}))
"""


def test_lancedb_holds_every_row_and_searches_them(index: VideoIndex, tmp_path: Path) -> None:
    """Read in a process of its own, as our `datasets` is not the library that LanceDB takes it for."""
    assert export(index, tmp_path / "videos.lance") == COUNT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["videos.lance"]
    command = [sys.executable, "-I", "-c", READ_LANCE, str(tmp_path), "videos"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    read = json.loads(done.stdout)
    assert read["near"] == 5 and not read["imported"]
    check([row | {"modified": None} for row in read["rows"]], index)


def test_what_cannot_be_written_is_one_line(index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"--to: .*out\.csv ends in \.csv; give FILE\.parquet or DIR\.lance"):
        export(index, tmp_path / "out.csv")

    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(export_module.importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"No module named 'pyarrow'.*pip install pyarrow==26\.0\.1"):
        export(index, tmp_path / "out.parquet")
    monkeypatch.setattr(export_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"LanceDB is not installed; pip install lancedb==0\.40\.0"):
        export(index, tmp_path / "out.lance")
    assert list(tmp_path.iterdir()) == []
