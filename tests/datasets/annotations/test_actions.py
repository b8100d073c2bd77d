"""Classes and splits of HMDB-51, UCF-101, Kinetics-400 and Something-Something V2: official counts, and small files."""

from collections import Counter
from pathlib import Path

import pytest

from datasets.annotations import hmdb51, kinetics400, ssv2, ucf101
from datasets.annotations.class_names import read_class_names, read_class_words
from datasets.annotations.clip_prompts import read_clip_prompts
from datasets.annotations.label_list import read_label_list
from tests.datasets.annotations.folders import error_of, touch, write_lines


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(("split", "count"), [("train", 3570), ("test", 1530), ("unused1", 1666), ("test3", 1530)])
def test_hmdb51_has_its_official_counts(real_data: Path, split: str, count: int, tmp_path: Path) -> None:
    found = hmdb51.read(real_data / "annotations" / "hmdb51", split, tmp_path)
    assert len(found.records) == count and len(found.classes) == 51
    if not split.startswith("unused"):
        per_class = Counter(record.label for record in found.records)
        assert set(per_class.values()) == {30 if split.startswith("test") else 70}


def test_hmdb51_is_the_same_from_every_file(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "annotations" / "hmdb51"
    official = hmdb51.read(folder, "test", tmp_path)
    assert official.classes == read_class_names(folder / "label_map.txt")
    assert tuple(sorted(read_class_names(folder / "class_list.txt"))) == official.classes
    labels = {Path(record.video).name: record.label for record in official.records}

    by_number = read_label_list(folder / "val1.txt", official.classes)
    assert {row.name: row.label for row in by_number} == labels
    (tmp_path / "hmdb51.csv").write_bytes((folder / "hmdb51.csv").read_bytes())
    table = hmdb51.read(tmp_path, "test1", tmp_path)
    assert {Path(record.video).name: record.label for record in table.records} == labels
    words = read_class_words(folder / "efficient_prompt_HMDB51_clsname.json", official.classes)
    assert words[:2] == ["brush hairs", "cartwheel"] and len(words) == 51


@pytest.mark.parametrize(
    ("split", "count"),
    [("train", 9537), ("train2", 9586), ("train3", 9624), ("test", 3783), ("test2", 3734), ("test3", 3696)],
)
def test_ucf101_has_its_official_counts(real_data: Path, split: str, count: int, tmp_path: Path) -> None:
    found = ucf101.read(real_data / "annotations" / "ucf101", split, tmp_path)
    assert len(found.records) == count and len(found.classes) == 101
    assert len({record.label for record in found.records}) == 101
    assert all(record.group for record in found.records)


def test_ucf101_is_the_same_from_every_file_and_its_splits_share_no_group(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "annotations" / "ucf101"
    train, test = (ucf101.read(folder, split, tmp_path) for split in ("train", "test"))
    assert not {record.group for record in train.records} & {record.group for record in test.records}
    # Two lists with other numbering; the second without folders to tell by.
    assert test.classes == read_class_names(folder / "ucf_101_labels.csv")
    by_number = read_label_list(folder / "val1.txt", test.classes)
    assert {row.name: row.label for row in by_number} == {Path(r.video).name: r.label for r in test.records}
    pushups = [record for record in test.records if "HandStandPushups" in record.video]
    assert {test.classes[record.label] for record in pushups} == {"HandstandPushups"} and len(pushups) == 28
    assert read_class_words(folder / "clip_ucf101.txt", test.classes)[0] == "Apply Eye Makeup"


def test_kinetics400_is_read_from_both_lists(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "annotations" / "kinetics400"
    found = kinetics400.read(folder, "val", tmp_path)
    assert len(found.records) == 19877 and len(found.classes) == 400 and found.classes[0] == "abseiling"
    assert "kinetics_video_val_se320.txt" in found.source
    other = read_label_list(folder / "kinetics_video_val_se320.txt", found.classes)
    assert len(other) == 19796
    by_id = {Path(record.video).stem[:11]: record.label for record in found.records}
    shared = [row for row in other if row.name[:11] in by_id]
    assert len(shared) > 19000 and all(by_id[row.name[:11]] == row.label for row in shared)


def test_ssv2_is_the_same_from_every_file(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "annotations" / "ssv2"
    found = ssv2.read(folder, "val", tmp_path)
    assert len(found.records) == 24777 and len(found.classes) == 174
    assert found.classes == read_class_names(folder / "ssv2_labels.csv") == read_class_names(folder / "label_map.txt")
    by_name = {Path(record.video).name: record.label for record in found.records}
    listed = read_label_list(folder / "sthv2_val_list_videos.txt", found.classes)
    assert len(listed) == 24776 and all(by_name[row.name] == row.label for row in listed)


def test_prompts_of_openai(real_data: Path) -> None:
    path = real_data / "annotations" / "prompts" / "clip_prompts.md"
    ucf, kinetics = read_clip_prompts(path, "UCF101"), read_clip_prompts(path, "Kinetics700")
    assert (len(ucf.classes), len(ucf.templates), len(kinetics.templates)) == (101, 48, 28)
    assert ucf.templates[0] == "a photo of a person {}." and ucf.classes[0] == "Apply Eye Makeup"
    assert "it has Birdsnap, CIFAR10" in error_of(lambda: read_clip_prompts(path, "HMDB51"))


def test_the_release_of_tvts_with_a_header_and_labels_from_1(tmp_path: Path) -> None:
    write(tmp_path / "label2id.json", '{"wave": 1, "clap": 0, "run": 2}')
    write(tmp_path / "split_1_test_list.tsv", "path\tlabel\nwave/a b.avi\t2\nclap/c.avi\t1\n")
    videos = touch(tmp_path / "videos", "wave/a b.avi")
    found = hmdb51.read(tmp_path, "test", videos)
    assert found.classes == ("clap", "wave", "run")
    assert [(Path(record.video).name, record.label) for record in found.records] == [("a b.avi", 1), ("c.avi", 0)]
    assert found.records[0].video == str(videos / "wave" / "a b.avi")

    write(tmp_path / "testlist01_new.tsv", "clap/v_clap_g01_c01.avi\t1\n")
    found = ucf101.read(tmp_path, "test", videos)
    assert [(record.label, record.group) for record in found.records] == [(0, "clap_g01")]

    write(tmp_path / "kinetics400_val_list_videos.tsv", "path\tlabel\nclap/-x_1.mkv\t0\nwave/y.mkv\t1\n")
    found = kinetics400.read(tmp_path, "val", touch(tmp_path / "videos", "-x_1.mp4"))
    assert found.records[0].video == str(videos / "-x_1.mp4") and [r.label for r in found.records] == [0, 1]


CLASSES = ("clap", "run", "wave")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.avi 0\nb.avi 2\n", [0, 2]),
        ("a.avi 1\r\nb.avi 3\r\n", [0, 2]),
        ("path\tlabel\na b.avi\t1\nb.avi\t0\n", [1, 0]),
        ("file,label\na.avi,wave\nb.avi,clap\n", [2, 0]),
        ("run/a.avi 1\nwave/b.avi 2\n", [1, 2]),
        ("run/a.avi 2\n", [1]),
        ("a.avi 0\n", [0]),
    ],
)
def test_headers_and_the_first_number_are_detected(text: str, expected: list[int], tmp_path: Path) -> None:
    rows = read_label_list(write(tmp_path / "list.txt", text), CLASSES)
    assert [row.label for row in rows] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.avi 1\nb.avi 2\n", "may begin at 0 or at 1; say which: data.first_label"),
        ("a.avi 0\nb.avi 3\n", "list.txt:2: label 3 is out of range; the 3 classes count from 0"),
        ("a.avi -1\n", "list.txt:1: label -1 is out of range"),
        ("a.avi 0\nb.avi jump\n", "list.txt:2: class 'jump' is neither a number nor one of the 3 classes"),
        ("a.avi\n", "list.txt:1: found 'a.avi', not a video and its class"),
        ("run/a.avi 1\nwave/b.avi 3\n", "contradict the folders of its videos"),
        ("", "the file is empty"),
    ],
)
def test_lists_that_cannot_be_right_are_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in error_of(lambda: read_label_list(write(tmp_path / "list.txt", text), CLASSES))


def test_the_first_number_may_be_said(tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", "a.avi 1\nb.avi 2\n")
    assert [[row.label for row in read_label_list(path, CLASSES, first)] for first in (0, 1)] == [[1, 2], [0, 1]]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "clap\nrun  \nwave", CLASSES),
        ("a.txt", "1 clap\r\n2 run\r\n3 wave\r\n", CLASSES),
        ("a.csv", 'id,name\n1,"run, fast"\n0,clap\n', ("clap", "run, fast")),
        ("a.json", '{"run": "1", "clap": "0"}', ("clap", "run")),
        ("a.json", '{"run": "to run", "clap": "clapping"}', ("run", "clap")),
    ],
)
def test_class_names_are_read_from_every_kind_of_list(
    name: str, text: str, expected: tuple[str, ...], tmp_path: Path
) -> None:
    assert read_class_names(write(tmp_path / name, text)) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "clap\nclap\n", "a.txt:2: class 'clap' stands at"),
        ("a.txt", "1 clap\n3 run\n", "leave out 2"),
        ("a.txt", "2 clap\n3 run\n", "leave out 1"),
        ("a.csv", "id,name\n0,clap\n0,run\n", "number 0 is 'clap' too"),
        ("a.csv", "id,name\nx,clap\n", "'x' is not the number of a class"),
        ("a.json", "[1]", "not an object of names"),
    ],
)
def test_wrong_class_names_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    assert message in error_of(lambda: read_class_names(write(tmp_path / name, text)))


def test_missing_words_are_refused(tmp_path: Path) -> None:
    assert "2 lines for 3 classes" in error_of(lambda: read_class_words(write(tmp_path / "w.txt", "a\nb\n"), CLASSES))
    path = write(tmp_path / "w.json", '{"clap": "clapping", "run": "running"}')
    assert "class 'wave' has no words" in error_of(lambda: read_class_words(path, CLASSES))


def test_choices_are_read_and_checked(tmp_path: Path) -> None:
    row = {"clip_name": "7.webm", "options": ["a", "b", "c"], "answer": 2}
    path, videos = tmp_path / "val.jsonl", touch(tmp_path / "videos", "7.webm")
    write_lines(path, [row])
    (record,) = ssv2.read_choices(path, videos)
    assert (record.video, record.options, record.answer) == (str(videos / "7.webm"), ("a", "b", "c"), 2)
    for change, message in (
        ({"answer": 3}, "answer 3 is not the number of one of 3 options"),
        ({"answer": "1"}, "answer '1'"),
        ({"options": ["a"]}, "a list of at least two texts"),
        ({"clip_name": ""}, "clip_name is ''"),
    ):
        write_lines(path, [row, {**row, **change}])
        assert message in error_of(lambda: ssv2.read_choices(path, videos))
        assert "val.jsonl:2" in error_of(lambda: ssv2.read_choices(path, videos))


def test_wrong_official_files_name_the_line(tmp_path: Path) -> None:
    folder = tmp_path / "testTrainMulti_7030_splits"
    write(folder / "run_test_split1.txt", "a.avi 1 \nb.avi 4 \n")
    assert "run_test_split1.txt:2: found 'b.avi 4'" in error_of(lambda: hmdb51.read(tmp_path, "train", tmp_path))
    assert "no split 'val'" in error_of(lambda: hmdb51.read(tmp_path, "val", tmp_path))
    write(tmp_path / "classInd.txt", "1 clap\n2 run\n")
    write(tmp_path / "trainlist01.txt", "run/v_run_g01_c01.avi 1\n")
    assert "number 1 is not that of 'run'" in error_of(lambda: ucf101.read(tmp_path, "train", tmp_path))
    write(tmp_path / "trainlist01.txt", "jump/v_jump_g01_c01.avi 1\n")
    assert "'jump' is not in classInd.txt" in error_of(lambda: ucf101.read(tmp_path, "train", tmp_path))
    assert "lacks the annotations of kinetics400" in error_of(lambda: kinetics400.read(tmp_path, "val", tmp_path))
