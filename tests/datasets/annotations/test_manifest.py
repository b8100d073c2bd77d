"""Our own manifests, of captions, questions and labels: what they become, and what is said of bad ones."""

import json
from pathlib import Path

import pytest

from datasets.annotations import manifest
from datasets.records import LabelRecord, QuestionRecord, VideoTextRecord


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


def write(folder: Path, *lines: object) -> Path:
    path = folder / "captions.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_one_record_a_part_with_captions_in_file_order(tmp_path: Path, videos: Path) -> None:
    path = write(
        tmp_path,
        {"video": "b.mp4", "caption": "one"},
        {"video": "/else/a.mp4", "caption": ["two", "three"]},
        "",
        {"video": "b.mp4", "caption": "four", "start": 1, "end": 2.5},
        {"video": "b.mp4", "caption": ["five"]},
        {"video": "sub/c.jpg", "caption": "six", "start": None},
    )
    b = str(videos / "b.mp4")
    assert manifest.read(path, videos) == [
        VideoTextRecord(b, ("one", "five")),
        VideoTextRecord("/else/a.mp4", ("two", "three")),
        VideoTextRecord(b, ("four",), 1, 2.5),
        VideoTextRecord(str(videos / "sub/c.jpg"), ("six",)),
    ]


def test_paths_are_absolute(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"video": "a.mp4", "caption": "x"})
    monkeypatch.chdir(tmp_path)
    assert manifest.read(path, Path("videos"))[0].video == str(videos / "a.mp4")


@pytest.mark.parametrize(
    ("line", "found", "remedy"),
    [
        ('{"video": "a.mp4", caption', "not JSON", "write one object a line"),
        ('["a.mp4", "x"]', "found list, not an object", "write {"),
        ({"video": "a.mp4", "captoin": "x"}, "unknown key 'captoin'", "did you mean 'caption'"),
        (
            {"video": "a.mp4", "caption": "x", "label": 3},
            "unknown key 'label'",
            "a line takes video, caption, start, end",
        ),
        ({"video": "a.mp4"}, "no key 'caption'", "add it"),
        ({"caption": "x"}, "no key 'video'", "add it"),
        ({"video": 3, "caption": "x"}, "video is 3", "write the path"),
        ({"video": "", "caption": "x"}, "video is ''", "write the path"),
        ({"video": "a.mp4", "caption": []}, "caption is []", "at least one text"),
        ({"video": "a.mp4", "caption": ["x", None]}, "caption is ['x', None]", "at least one text"),
        ({"video": "a.mp4", "caption": " !? "}, "caption ' !? ' has no words", "describe the video"),
        ({"video": "a.mp4", "caption": ["x", ""]}, "caption '' has no words", "describe the video"),
        ({"video": "a.mp4", "caption": "x", "start": 2, "end": 2}, "start 2 is not before end 2", "where the part"),
        ({"video": "a.mp4", "caption": "x", "end": 0}, "start 0 is not before end 0", "where the part"),
        ({"video": "a.mp4", "caption": "x", "start": -1}, "start is -1", "0 or more"),
        ({"video": "a.mp4", "caption": "x", "start": "0:12"}, "start is '0:12'", "write seconds"),
        ('{"video": "a.mp4", "caption": "x", "end": NaN}', "end is nan", "write seconds"),
        ({"video": "a.png", "caption": "x", "end": 2}, "end has no effect on an image", "remove it"),
    ],
)
def test_bad_lines(tmp_path: Path, videos: Path, line: object, found: str, remedy: str) -> None:
    path = write(tmp_path, {"video": "a.mp4", "caption": "fine"}, line)
    with pytest.raises(ValueError) as error:
        manifest.read(path, videos)
    text = str(error.value)
    assert text.startswith(f"{path}:2: ") and found in text and remedy in text and "\n" not in text


def test_bytes_that_are_no_text(tmp_path: Path, videos: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_bytes(b'{"video": "\xff\xfe", "caption": "x"}\n')
    with pytest.raises(ValueError, match=r"captions.jsonl:1: not JSON"):
        manifest.read(path, videos)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_manifest(tmp_path: Path, videos: Path, content: str) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path}: the manifest is empty"):
        manifest.read(path, videos)


def test_no_manifest(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(ValueError, match="nowhere.jsonl: no such manifest; set data.manifest"):
        manifest.read(tmp_path / "nowhere.jsonl", videos)


def test_no_videos_folder_matters_to_relative_videos_only(tmp_path: Path) -> None:
    path = write(tmp_path, {"video": "/else/a.mp4", "caption": "x"}, {"video": "b.mp4", "caption": "x"})
    with pytest.raises(ValueError, match=f":2: no folder {tmp_path / 'gone'} for 'b.mp4'; set data.videos"):
        manifest.read(path, tmp_path / "gone")
    path = write(tmp_path, {"video": "/else/a.mp4", "caption": "x"})
    assert len(manifest.read(path, tmp_path / "gone")) == 1


def test_real_captions(real_data: Path) -> None:
    records = manifest.read(real_data / "clips/captions.jsonl", real_data / "clips/videos")
    assert len(records) == 16 and all(Path(record.video).is_file() for record in records)


def test_one_record_a_question_with_the_share_of_each_answer(tmp_path: Path, videos: Path) -> None:
    path = write(
        tmp_path,
        {"video": "a.mp4", "question": "Who runs?", "answer": "dog"},
        "",
        {"video": "/else/b.jpg", "question": "is it red", "answer": ["no", "yes", "no", "no"], "question_id": "q"},
        {"video": "a.mp4", "question": "where", "answer": ["x", "y"], "question_id": 7, "type": "place", "end": 2},
        {"video": "a.mp4", "question": "Who runs?", "answer": ["cat"], "question_id": None, "type": None, "start": 1},
    )
    a = str(videos / "a.mp4")
    assert manifest.read_questions(path, videos) == [
        QuestionRecord(a, "Who runs?", ("dog",), (1.0,), "1"),
        QuestionRecord("/else/b.jpg", "is it red", ("no", "yes"), (0.75, 0.25), "q"),
        QuestionRecord(a, "where", ("x", "y"), (0.5, 0.5), "7", "place", None, 2),
        QuestionRecord(a, "Who runs?", ("cat",), (1.0,), "5", None, 1, None),
    ]


@pytest.mark.parametrize(
    ("line", "found", "remedy"),
    [
        ("[]", "found list, not an object", 'write {"video": ..., "question": ..., "answer": ...}'),
        ({"video": "a.mp4", "caption": "x"}, "unknown key 'caption'", "a line takes video, question, answer"),
        ({"video": "a.mp4", "question": "x", "anwser": "y"}, "unknown key 'anwser'", "did you mean 'answer'"),
        ({"video": "a.mp4", "question": "x"}, "no key 'answer'", "add it"),
        ({"video": "a.mp4", "answer": "x"}, "no key 'question'", "add it"),
        ({"question": "x", "answer": "x"}, "no key 'video'", "add it"),
        ({"video": "a.mp4", "question": ["x"], "answer": "y"}, "question is ['x']", "write a text with words"),
        ({"video": "a.mp4", "question": "?", "answer": "y"}, "question is '?'", "write a text with words"),
        ({"video": "a.mp4", "question": "x", "answer": 3}, "answer is 3", "write a text or a list"),
        ({"video": "a.mp4", "question": "x", "answer": []}, "answer is []", "at least one text"),
        (
            {"video": "a.mp4", "question": "x", "answer": ["y", " "]},
            "answer ' ' has no words",
            "write what is answered",
        ),
        ({"video": "a.mp4", "question": "x", "answer": "y", "type": 3}, "type is 3", "in words"),
        ({"video": "a.mp4", "question": "x", "answer": "y", "question_id": 1.5}, "question_id is 1.5", "write a text"),
        (
            {"video": "a.mp4", "question": "x", "answer": "y", "question_id": "1"},
            "question_id '1' is an earlier",
            "make",
        ),
        ({"video": "a.mp4", "question": "x", "answer": "y", "start": -1}, "start is -1", "0 or more"),
    ],
)
def test_bad_questions(tmp_path: Path, videos: Path, line: object, found: str, remedy: str) -> None:
    path = write(tmp_path, {"video": "a.mp4", "question": "x", "answer": "fine"}, line)
    with pytest.raises(ValueError) as error:
        manifest.read_questions(path, videos)
    text = str(error.value)
    assert text.startswith(f"{path}:2: ") and found in text and remedy in text and "\n" not in text


def test_an_empty_manifest_of_questions_says_what_a_line_is(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(ValueError, match='is empty; write one {"video": ..., "question": ..., "answer": ...} a line'):
        manifest.read_questions(write(tmp_path), videos)


def test_real_questions(real_data: Path) -> None:
    records = manifest.read_questions(real_data / "clips/qa.jsonl", real_data / "clips/videos")
    assert len(records) == 16 and all(Path(record.video).is_file() for record in records)
    assert records[0].question == "what color is the shirt of the man" and records[0].answers == ("orange",)


def test_labels_are_numbered_in_alphabetical_order_or_as_a_head_knows_them(tmp_path: Path, videos: Path) -> None:
    path = write(
        tmp_path,
        {"video": "b.mp4", "label": " walk", "group": "film 3"},
        {"video": "/else/a.mp4", "label": "sit", "start": 1, "end": 2.5},
        {"video": "c.jpg", "label": 7, "group": None},
    )
    b, c = str(videos / "b.mp4"), str(videos / "c.jpg")
    found = manifest.read_labels(path, videos)
    assert found.classes == ("7", "sit", "walk") and found.split == "captions"
    assert found.records == [
        LabelRecord(b, 2, "film 3"),
        LabelRecord("/else/a.mp4", 1, None, 1, 2.5),
        LabelRecord(c, 0),
    ]
    known = manifest.read_labels(path, videos, ("walk", "run", "sit", "7"))
    assert [record.label for record in known.records] == [0, 2, 3] and len(known.classes) == 4


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ({"video": "a.mp4"}, "no key 'label'; add it"),
        ({"video": "a.mp4", "label": "!"}, "label is '!'; write the name of the class"),
        ({"video": "a.mp4", "label": ["sit"]}, "label is ['sit']; write the name of the class"),
        ({"video": "a.mp4", "label": True}, "label is True; write the name of the class"),
        ({"video": "a.mp4", "label": "sit", "group": 3}, "group is 3; write the name of the longer video"),
        ({"video": "a.mp4", "label": "sit", "caption": "x"}, "unknown key 'caption'; a line takes video, label"),
        ({"video": "a.mp4", "label": "sit", "end": -1}, "end is -1; write seconds"),
        ({"video": "a.mp4", "label": "stand"}, "class 'stand' is not one of the 2 known: sit, walk; correct the label"),
    ],
)
def test_bad_labels(tmp_path: Path, videos: Path, line: object, found: str) -> None:
    path = write(tmp_path, {"video": "a.mp4", "label": "sit"}, "", line)
    with pytest.raises(ValueError) as error:
        manifest.read_labels(path, videos, ("sit", "walk"))
    assert str(error.value).startswith(f"{path}:3: {found}") and "\n" not in str(error.value)
