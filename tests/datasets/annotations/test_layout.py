"""Which files of a dataset are taken, and which file a video's name means."""

import os
from pathlib import Path

import pytest

from datasets.annotations.layout import Format, VideoFolder, check_split, choose
from tests.datasets.annotations.folders import error_of, touch

FORMATS = (Format("first", ("a.txt", "b.txt")), Format("second", ("c.txt",), "honest"))


def test_the_first_complete_format_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "c.txt", "a.txt")
    found = choose("d", "train", tmp_path, FORMATS)
    assert (found.format, found.paths, found.source) == (FORMATS[1], (tmp_path / "c.txt",), "second (c.txt)")
    touch(tmp_path, "annotations/b.txt")
    found = choose("d", "train", tmp_path, FORMATS)
    assert found.paths == (tmp_path / "a.txt", tmp_path / "annotations/b.txt")
    assert found.source == "first (a.txt, annotations/b.txt); there but not read: c.txt"


def test_the_root_comes_before_its_folder_annotations(tmp_path: Path) -> None:
    touch(tmp_path, "annotations/c.txt", "c.txt")
    assert choose("d", "train", tmp_path, FORMATS).paths == (tmp_path / "c.txt",)


def test_no_format_lists_the_files_that_would_do(tmp_path: Path) -> None:
    begins = f"data.root: {tmp_path} (or its folder annotations) lacks the annotations of d's 'train'"
    remedy = "; put a.txt and b.txt, or c.txt there, docs/DATASETS.md says where to get them"
    assert error_of(lambda: choose("d", "train", tmp_path, FORMATS)) == begins + remedy
    touch(tmp_path, "b.txt")
    assert error_of(lambda: choose("d", "train", tmp_path, FORMATS)) == f"{begins} and holds only b.txt{remedy}"


def test_an_unknown_split_is_told_the_known_ones() -> None:
    check_split("d", "val", ("train", "val"))
    text = error_of(lambda: check_split("d", "dev", ("train", "val")))
    assert text == "data.dataset: d has no split 'dev'; it has train, val"


@pytest.mark.parametrize(
    ("there", "name", "found"),
    [
        (["a.avi", "a.mp4", "a.avi.mp4"], "a.avi", "a.avi"),
        (["a.mp4", "a.avi.mp4"], "a.avi", "a.avi.mp4"),
        (["a.mp4", "b.avi"], "a.avi", "a.mp4"),
        (["a.mkv"], "a.", "a.mkv"),
        (["a..mp4", "a.mp4"], "a.", "a..mp4"),
        (["a."], "a.", "a."),
        (["a"], "a", "a"),
        (["a.MOV"], "a", "a.MOV"),
        (["a.txt", "a.mp4.part", "ab.mp4"], "a", None),
        (["a.webm", "a.mkv"], "a", "a.webm"),
        (["a.avi", "a.mp4"], "a", "a.mp4"),
        (["2011/a.mp4"], "a", "2011/a.mp4"),
        (["2011/a.mp4", "a.avi"], "a", "a.avi"),
        (["b/a.mp4", "c/a.mp4", "b/x/a.mp4"], "a", "b/a.mp4"),
        (["a/a.mp4"], "a", "a/a.mp4"),
        (["v1.5.mp4"], "v1.5", "v1.5.mp4"),
        (["v1.mp4"], "v1.5", None),
    ],
)
def test_a_name_means_the_file_that_differs_by_its_suffix_only(
    tmp_path: Path, there: list[str], name: str, found: str | None
) -> None:
    path = VideoFolder(touch(tmp_path, *there)).path(name)
    assert path == str(tmp_path / (found if found is not None else f"{name}.mp4"))


def test_the_expected_suffix_comes_first(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.mkv")
    assert VideoFolder(tmp_path).path("a") == str(tmp_path / "a.mp4")
    assert VideoFolder(tmp_path, expected=".mkv").path("a") == str(tmp_path / "a.mkv")


def test_a_missing_video_has_the_path_where_it_is_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gone = VideoFolder(Path("gone"), expected=".mkv")
    assert [gone.path(name) for name in ("a", "b.mov", "c.")] == [
        str(tmp_path / "gone" / name) for name in ("a.mkv", "b.mov", "c.")
    ]
    assert VideoFolder(Path("gone"), expected="").path("a") == str(tmp_path / "gone/a")


def test_links_are_followed_and_may_lead_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "other/b.mp4", "videos/a.mp4")
    os.symlink(tmp_path / "other", tmp_path / "videos/2012")
    os.symlink(tmp_path / "videos", tmp_path / "other/back")
    os.symlink(tmp_path / "nowhere", tmp_path / "videos/c.mp4")
    folder = VideoFolder(tmp_path / "videos")
    assert folder.path("b") == str(tmp_path / "videos/2012/b.mp4")
    assert folder.path("c") == str(tmp_path / "videos/c.mp4")
