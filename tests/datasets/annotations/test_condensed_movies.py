"""Condensed Movies: the authors' three tables and the challenge's two."""

from pathlib import Path

import pytest

from datasets.annotations import condensed_movies
from datasets.records import VideoTextRecord
from tests.datasets.annotations.folders import error_of, touch

CLIPS = "videoid,year,imdbid\nc2,2012.0,tt1\nc1,2013.0,tt2\nc3,2014.0,tt1\nc4,2014.0,tt3\n"
DESCRIPTIONS = 'imdbid,videoid,description\ntt2,c1,one\ntt1,c2,"two, ""too"""\ntt3,c4,four\n'
SPLIT = "imdbid,split\ntt1,train\ntt2,train\ntt3,test\n"
CHALLENGE = "videoid,caption,split,upload_year\nc1,one,train,2011\nc2,two,val,2012\nc3,three,train,2012\n"
FIVE = {
    "train": {
        "Sv-BxH3SVS8": 'On the eve of the Rebellion, the players sing "One Day More".',
        "bbuElXPp_s8": "Tony orders his students to examine their own mouths, and Mitzi makes an embarrassing "
        "discovery.",
    },
    "val": {"tdzX5AKWiDw": "Violet Crawley passes on Downton's legacy to her granddaughter, Lady Mary Talbot."},
    "test": {
        "jWJqzIUntho": "Steve accuses Jim of lying about being lost in the wilderness.",
        "-HjYVQXvxVk": "After taking Klara off the property, Fräulein Rottenmeier gives Heidi a bit of discipline.",
    },
}


def write_authors(root: Path, clips: str = CLIPS, descriptions: str = DESCRIPTIONS, split: str = SPLIT) -> Path:
    for name, content in (("clips", clips), ("descriptions", descriptions), ("split", split)):
        (root / f"{name}.csv").write_text(content)
    return root


def test_the_authors_tables(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", "2012/c2.mkv", "2013/c1.mp4")
    annotations = condensed_movies.read(write_authors(tmp_path), "train", videos)
    assert annotations.records == [
        VideoTextRecord(str(videos / "2012/c2.mkv"), ('two, "too"',)),
        VideoTextRecord(str(videos / "2013/c1.mp4"), ("one",)),
    ]
    assert annotations.source.endswith(
        "(clips.csv, descriptions.csv, split.csv); 1 clips without a description are left out"
    )
    test = condensed_movies.read(tmp_path, "test", videos)
    assert (test.records, test.labelled) == ([VideoTextRecord(str(videos / "c4.mkv"), ("four",))], True)


def test_the_challenges_tables_come_first_and_its_test_set_is_not_labelled(tmp_path: Path) -> None:
    write_authors(tmp_path)
    (tmp_path / "train_val_challf0.csv").write_text(CHALLENGE)
    annotations = condensed_movies.read(tmp_path, "train", tmp_path)
    assert annotations.records == [
        VideoTextRecord(str(tmp_path / "c1.mkv"), ("one",)),
        VideoTextRecord(str(tmp_path / "c3.mkv"), ("three",)),
    ]
    assert annotations.labelled and "challenge" in annotations.source
    assert condensed_movies.read(tmp_path, "val", tmp_path).labelled
    # The authors' test set may hold clips that the challenge trains on.
    assert "test_challf0.csv" in error_of(lambda: condensed_movies.read(tmp_path, "test", tmp_path))
    (tmp_path / "test_challf0.csv").write_text("videoid,caption,split\nc9,whose,test\n")
    test = condensed_movies.read(tmp_path, "test", tmp_path)
    assert (test.labelled, test.records) == (False, [VideoTextRecord(str(tmp_path / "c9.mkv"), ("whose",))])


@pytest.mark.parametrize(
    ("tables", "file", "found"),
    [
        ({"clips": "videoid,movie\nc1,tt1\n"}, "clips", ":1: no columns 'imdbid'"),
        ({"clips": CLIPS + "c5,2012,tt9\n"}, "clips", ":6: movie 'tt9' is not in "),
        ({"clips": CLIPS + "c2,2012,tt1\n"}, "clips", ":6: videoid 'c2' stands at "),
        ({"clips": CLIPS + "c5,2012\n"}, "clips", ":6: 2 fields for 3 columns"),
        ({"clips": CLIPS + ",2012,tt1\n"}, "clips", ":6: videoid is '', not a text"),
        ({"descriptions": DESCRIPTIONS + "tt1,c2,again\n"}, "descriptions", ":5: videoid 'c2' stands at "),
        ({"descriptions": DESCRIPTIONS + "tt1,c3, \n"}, "descriptions", ":5: description is ' ', not a text"),
        ({"split": SPLIT + "tt3,val\n"}, "split", ":5: imdbid 'tt3' stands at "),
        ({"split": SPLIT.replace("test", "tset")}, "split", ":4: split is 'tset', not one of"),
        ({"split": SPLIT.replace("train", "val")}, "split", ": no clip of split 'train' has a description"),
    ],
)
def test_bad_tables(tmp_path: Path, tables: dict[str, str], file: str, found: str) -> None:
    write_authors(tmp_path, **tables)
    text = error_of(lambda: condensed_movies.read(tmp_path, "train", tmp_path))
    assert text.startswith(f"{tmp_path / file}.csv{found}")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("videoid,caption\nc1,one\n", ":1: no columns 'split'"),
        (CHALLENGE + "c1,again,train,2011\n", ":5: videoid 'c1' stands at "),
        (CHALLENGE + "c4,four,dev,2011\n", ":5: split is 'dev', not one of"),
        (CHALLENGE + "c4,,train,2011\n", ":5: caption is '', not a text"),
        (CHALLENGE.replace("train", "val"), ": no row of split 'train'"),
    ],
)
def test_bad_challenge_tables(tmp_path: Path, content: str, found: str) -> None:
    path = tmp_path / "train_val_challf0.csv"
    path.write_text(content)
    assert error_of(lambda: condensed_movies.read(tmp_path, "train", tmp_path)).startswith(f"{path}{found}")


@pytest.mark.parametrize(
    ("split", "described", "left_out"), [("train", 24132, 75), ("val", 3366, 2), ("test", 6593, 17)]
)
def test_real_counts_and_five_descriptions_word_by_word(
    real_data: Path, split: str, described: int, left_out: int
) -> None:
    # Of 34185 clips 34091 have a description.
    annotations = condensed_movies.read(real_data / "annotations/condensed_movies", split, Path("/videos"))
    texts = {Path(record.video).stem: record.captions for record in annotations.records}
    assert len(annotations.records) == len(texts) == described
    assert annotations.source.endswith(f"; {left_out} clips without a description are left out")
    assert {name: texts[name] for name in FIVE[split]} == {name: (text,) for name, text in FIVE[split].items()}
    assert {len(captions) for captions in texts.values()} == {1}
