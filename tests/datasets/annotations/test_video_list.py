"""A list of videos leaves the records it names, and results say so."""

from pathlib import Path

import pytest

from datasets.annotations import public
from datasets.annotations.video_list import restrict
from datasets.records import Annotations, VideoTextRecord
from tests.datasets.annotations.folders import error_of

NAMES = ("a.mp4", "a.mov", "b.avi", "c.", "@N01_d", "v_e.mp4")
ANNOTATIONS = Annotations(
    [VideoTextRecord(f"/videos/{number}", (name,)) for number, name in enumerate(NAMES)],
    "didemo", "test", "the authors' (x.json)", names=NAMES,
)  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ("a.mov\n", ["a.mov"]),  # the exact name, not its twin
        ("b.avi\r\n\n c. ", ["b.avi", "c."]),
        ("b.mp4\nc\nv_e", ["b.avi", "c.", "v_e.mp4"]),  # by suffix where no name is exact
        ("v_e.mkv\n@N01_d.mp4\na.mp4", ["a.mp4", "@N01_d", "v_e.mp4"]),  # in the order of the annotations
        ("a", ["a.mp4", "a.mov"]),
    ],
)
def test_records_that_are_named(tmp_path: Path, lines: str, kept: list[str]) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "list.txt").write_text(lines)
    restricted = restrict(ANNOTATIONS, tmp_path, "list.txt")
    assert [record.captions[0] for record in restricted.records] == list(restricted.names) == kept
    assert restricted.source == f"the authors' (x.json); {len(kept)} of 6 as list.txt lists them"
    assert (restricted.video_list, restricted.dataset, restricted.split) == ("list.txt", "didemo", "test")


def test_listed_videos_without_annotations_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "list.txt").write_text("a.mp4\nx.mp4\ny\n")
    assert restrict(ANNOTATIONS, tmp_path, "list.txt").source.endswith("lists them, 2 listed videos have none")
    assert f"2 videos of {tmp_path}/list.txt have no annotations, the first is {tmp_path}/list.txt:2" in caplog.text


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("x\ny\n", "list.txt:1: 'x' is not in the authors' (x.json), nor is any other line's; name another list"),
        ("a.mp4\n\na.mp4\n", "list.txt:3: 'a.mp4' stands at "),
        ("", "list.txt: the file is empty"),
    ],
)
def test_bad_lists(tmp_path: Path, lines: str, found: str) -> None:
    (tmp_path / "list.txt").write_text(lines)
    assert error_of(lambda: restrict(ANNOTATIONS, tmp_path, "list.txt")).startswith(f"{tmp_path}/{found}")


def test_no_list(tmp_path: Path) -> None:
    assert "gone.txt: no such list of videos; set data" in error_of(lambda: restrict(ANNOTATIONS, tmp_path, "gone.txt"))


@pytest.mark.parametrize(
    ("dataset", "split", "file", "before", "after"),
    [
        ("didemo", "test", "test_list.txt", 1037, 1004),
        ("didemo", "val", "val_list.txt", 1094, 1065),
        ("didemo", "test_merged", "test_list.txt", 1004, 1004),
        ("activitynet_captions", "val_1", "val_1_list.txt", 4917, 4917),
        ("activitynet_captions", "val_2", "val_2_list.txt", 4885, 4885),
        ("msrvtt", "test_1k", "val_list_jsfusion.txt", 1000, 1000),
    ],
)
def test_real_lists(real_data: Path, dataset: str, split: str, file: str, before: int, after: int) -> None:
    root = real_data / "annotations" / dataset
    annotations = public.read(dataset, root, split, Path("/videos"))
    restricted = restrict(annotations, root, file)
    assert len(annotations.records) == len(set(annotations.names)) == before
    assert len(restricted.records) == after and "have none" not in restricted.source
    stems = {name.rpartition(".")[0] or name for name in restricted.names}
    listed = {name.rpartition(".")[0] or name for name in (root / file).read_text().split()}
    assert stems == listed


@pytest.mark.parametrize("dataset", ["condensed_movies", "activitynet_qa", "msrvtt_qa"])
def test_real_names_are_the_videos(real_data: Path, dataset: str) -> None:
    annotations = public.read(dataset, real_data / "annotations" / dataset, "val", Path("/videos"))
    assert len(annotations.names) == len(annotations.records) > 3000
    assert [Path(record.video).stem for record in annotations.records] == list(annotations.names)
