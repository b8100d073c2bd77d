"""Folders of classified videos, and their tables."""

from pathlib import Path

from datasets.annotations import labelled_folder
from tests.datasets.annotations.folders import error_of, touch

TABLE = "file,label,group,split\nb/1.avi,walk,x,train\na/2.avi,sit,y,test\nb/3.avi,sit,x,train\n"


def test_one_folder_a_class(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "walk/b.mp4", "sit/a.AVI", "sit/notes.txt", "empty/readme")
    found = labelled_folder.read(root)
    assert found.classes == ("sit", "walk")
    assert [(Path(record.video).name, record.label) for record in found.records] == [("a.AVI", 0), ("b.mp4", 1)]


def test_the_table_wins_over_the_folders(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "a/2.avi", "b/1.avi", "b/3.avi", "c/4.avi")
    (root / "labels.csv").write_text(TABLE)
    found = labelled_folder.read(root, "train")
    # Classes are those of the whole table, so numbers mean the same in every split.
    assert found.classes == ("sit", "walk") and [record.label for record in found.records] == [1, 0]
    assert {record.group for record in found.records} == {"x"} and found.records[0].video == str(root / "b" / "1.avi")
    assert len(labelled_folder.read(root).records) == 3


def test_what_cannot_be_right_is_refused(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "walk/b.mp4")
    assert "has no videos of the split 'test'" in error_of(lambda: labelled_folder.read(root, "test"))
    message = error_of(lambda: labelled_folder.read(root, classes=("run", "sit")))
    assert "class 'walk' is not one of the 2 known: run, sit" in message
    (root / "labels.csv").write_text(TABLE)
    assert "its splits are test, train" in error_of(lambda: labelled_folder.read(root, "val"))
    (root / "labels.csv").write_text("file,label\n../x.avi,walk\n")
    assert "labels.csv:2: video '../x.avi' leaves the folder" in error_of(lambda: labelled_folder.read(root))
    (root / "labels.csv").write_text("file,group\na,b\n")
    assert "no columns 'label'" in error_of(lambda: labelled_folder.read(root))
    assert "has neither labels.csv nor folders" in error_of(
        lambda: labelled_folder.read(touch(tmp_path / "no", "a.txt"))
    )
    assert "there is no such folder" in error_of(lambda: labelled_folder.read(tmp_path / "missing"))


def test_real_actions(real_data: Path) -> None:
    root = real_data / "clips" / "actions"
    train, test = (labelled_folder.read(root, split) for split in ("train", "test"))
    assert (len(train.records), len(test.records), len(train.classes)) == (110, 50, 10)
    assert not {record.group for record in train.records} & {record.group for record in test.records}
    assert all(Path(record.video).is_file() for record in (*train.records, *test.records))
