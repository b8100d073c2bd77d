import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from datasets.objects.detections import Detection, choose_boxes
from datasets.objects.store import ObjectSettings, StoreWriter
from datasets.pairs import PairTable
from datasets.records import VideoTextRecord
from scripts.check_dataset.__main__ import main
from scripts.check_dataset.measure import _shared
from tests.videos import grey_steps, write_video

BASE = Path(__file__).resolve().parent.parent.parent / "configs" / "debug" / "base.yaml"
TRAINING = {"optim": {"lr": 1e-3}, "train": {"batch_size": 4, "max_epochs": 1}}


def write_config(root: Path, task: str, **sections: Any) -> Path:
    path = root / "config.yaml"
    sections = {"base": str(BASE), "task": task, **TRAINING, **sections}
    sections["data"] = {"root": str(root)} | sections.get("data", {})
    YAML(typ="safe", pure=True).dump(sections, path)
    return path


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main(["--jobs", "0", *map(str, arguments)])
    assert isinstance(end.value.code, int)
    return end.value.code


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def cells(text: str, label: str) -> list[str]:
    """The cells of the row of the printed table that begins with a label."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(label)]
    return [cell.strip() for cell in line.strip()[len(label) :].split("  ") if cell.strip()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Train: 3 good videos of 1, 2 and 2 s, one broken, one missing. Test: one of those, and one of 4 frames."""
    for name, frames in (("a", 10), ("b", 20), ("c", 20), ("short", 4)):
        write_video(tmp_path / "videos" / f"{name}.mp4", grey_steps(frames, size=64), fps=10)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    train = [
        {"video": "a.mp4", "caption": ["one two three", "A (long) caption " + "of words " * 40]},
        {"video": "b.mp4", "caption": "the same text"},
        {"video": "c.mp4", "caption": "The same, text"},
        {"video": "broken.mp4", "caption": "the SAME text!"},
        {"video": "gone.mp4", "caption": "not there"},
    ]
    write_jsonl(tmp_path / "captions.jsonl", train)
    write_jsonl(tmp_path / "test.jsonl", [{"video": "c.mp4", "caption": "x"}, {"video": "short.mp4", "caption": "y z"}])
    return tmp_path


def test_the_table_says_what_is_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(root, "retrieval", data={"test_manifest": "test.jsonl", "max_words": 50, "max_tokens": 40})
    out = root / "out"
    assert run("--config", config, "--out", out) == 0
    text = capsys.readouterr().out
    assert cells(text, "videos annotated") == ["5", "2"]
    assert cells(text, "there") == ["4", "2"]
    assert cells(text, "missing") == ["1", "0"]
    assert cells(text, "undecodable") == ["1", "0"]
    assert cells(text, "seconds, min/median/max") == ["1.0/2.0/2.0", "0.4/1.2/2.0"]
    assert cells(text, "frames, min/median/max") == ["10/20/20", "4/12/20"]
    assert cells(text, "fewer frames than a clip") == ["0 (0.0 %)", "1 (50.0 %)"]
    # 3, 83, 3, 3, 3 and 2 words; "the same, text" is another text.
    assert cells(text, "words, min/median/max") == ["2/3/83", "1/2/2"]
    assert cells(text, "cut to words") == ["50", "50"]
    assert cells(text, "another video has too") == ["2 (33.3 %)", "0 (0.0 %)"]
    assert text.count("1 (16.7 %)") == 2, "one of six is cut to 50 words, and still to 40 pieces"
    assert f"train and test have 1 videos in common, the first is {root}/videos/c.mp4" in text

    assert rows(out / "missing.jsonl") == [{"part": "train", "video": f"{root}/videos/gone.mp4"}]
    (broken,) = rows(out / "undecodable.jsonl")
    assert broken["video"] == f"{root}/videos/broken.mp4" and "PyAV" in broken["reason"]
    numbers = json.loads((out / "dataset.json").read_text())
    assert numbers["overlap"] == [{"parts": ["train", "test"], "videos": [f"{root}/videos/c.mp4"]}]
    assert numbers["parts"]["train"]["texts"]["pieces"]["max"] == 52  # 50 words, [CLS] and [SEP]
    # In processes of their own the same comes out.
    assert run("--config", config, "--out", root / "again", "--strict", "--jobs", "2") == 1
    assert (root / "again" / "dataset.json").read_text() == (out / "dataset.json").read_text()


def test_the_sheet_shows_the_frames_the_run_takes(root: Path) -> None:
    config = write_config(root, "retrieval", data={"test_manifest": "test.jsonl"})
    run("--config", config, "--out", root / "out", "--parts", "test")
    with Image.open(root / "out" / "examples_test.png") as sheet:
        pixels = np.array(sheet)
    # 6 middles of equal parts of 20 frames, side by side below the title and one line; greys of 20, 30, ...
    top = 17 + 2 * 8 + 17 + 56
    greys = [int(pixels[top, 8 + 112 * place + 56].mean()) for place in range(7)]
    expected = [20 + 10 * ((2 * place + 1) * 20 // 12) for place in range(6)]
    assert np.abs(np.array(greys[:6]) - expected).max() <= 4 and greys[6] == 255
    assert not (root / "out" / "examples_train.png").exists()


def test_examples_are_framed_as_the_run_frames_them(root: Path) -> None:
    """Wide frames whose sides are red are cropped to their middle, and squashed where the run squashes."""
    frames = np.full((20, 64, 128, 3), 200, np.uint8)
    frames[:, :, :32], frames[:, :, 96:] = (255, 0, 0), (255, 0, 0)
    write_video(root / "videos" / "a.mp4", frames)
    for fit in ("crop", "squash"):
        crop = {"fit": "crop", "resize": 32} if fit == "crop" else {}
        video = {"num_frames": 4, "image_size": 32, "interpolation": "bicubic", "eval_sampling": "per_second", **crop}
        config = write_config(root, "retrieval", data={"manifest": "captions.jsonl"}, video=video)
        assert run("--config", config, "--out", root / fit) == 0
        sheet = np.asarray(Image.open(root / fit / "examples_train.png")).astype(int)
        first = sheet[16 + 17 * 2 + 20 :][:60, 8 : 8 + 112]
        is_red = (first[..., 0] - first[..., 1]) > 100
        assert (is_red.mean() > 0.3) == (fit == "squash")


def test_boxes_are_counted_and_drawn(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ObjectSettings(4, 2, 64, "squash", "uniform", "a test", {"thing": 1})
    writer = StoreWriter(root / "a.objects", ["a", "b", "broken"], settings)
    writer.put(0, choose_boxes([[Detection(1, (8, 8, 40, 40), 0.9)]] * 4, 2), 64)
    writer.put(1, choose_boxes([[]] * 4, 2), 64)
    writer.fail(2)
    writer.finish()
    model = {"name": "stoa", "objects_per_frame": 2, "depth": 2, "joint_depth": 1, "width": 16, "heads": 2}
    path = root / "config.yaml"
    sections = {
        "task": "retrieval", **TRAINING, "model": model, "video": {"num_frames": 4, "image_size": 64},
        "data": {"root": str(root), "manifest": "captions.jsonl", "objects": str(root / "a.objects")},
        "objective": {"name": "fusion", "losses": ["vtc"]}, "evaluation": {"rerank": 0},
    }  # fmt: skip
    YAML(typ="safe", pure=True).dump(sections, path)
    assert run("--config", path, "--out", root / "out") == 0
    assert run("--config", path, "--out", root / "out", "--strict") == 1
    text = capsys.readouterr().out
    text = text[text.rindex("train: ") :]
    assert cells(text, "clips without boxes") == ["1"] and cells(text, "whose boxes failed") == ["1"]
    assert cells(text, "boxes a frame, mean") == ["0.5"] and cells(text, "trajectories a clip, mean") == ["0.5"]
    assert json.loads((root / "out" / "dataset.json").read_text())["parts"]["train"]["boxes"]["without"] == 1

    # The box's edge is coloured on the first frame, and nothing else is; frames are grey.
    sheet = np.asarray(Image.open(root / "out" / "objects_train_0.png").convert("RGB")).astype(int)
    first = sheet[:64, :64]
    coloured = first.max(axis=2) - first.min(axis=2) > 60
    assert coloured[8, 10:38].all() and coloured[38:41, 10:38].any(axis=0).all()
    assert not coloured[45:].any() and not coloured[:, 45:].any()

    path.write_text(path.read_text().replace("num_frames: 4", "num_frames: 5"))
    assert run("--config", path, "--out", root / "out") == 2
    assert "num_frames is 4 there and 5 here" in capsys.readouterr().err


def test_only_some_are_read_unless_all_are_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(root, "retrieval")
    for number, tried in (("0", "0"), ("3", "3"), ("all", "4")):
        assert run("--config", config, "--out", root / "out", "--decode", number) == 0
        assert cells(capsys.readouterr().out, "videos read") == [tried]


def test_a_part_that_cannot_be_read_does_not_hide_the_others(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "test.jsonl").write_text('{"video": "c.mp4"}\n')
    write_jsonl(root / "eval.jsonl", [{"video": "nowhere.mp4", "caption": "x"}])
    names = {"eval_manifest": "eval.jsonl", "test_manifest": "test.jsonl"}
    assert run("--config", write_config(root, "retrieval", data=names), "--out", root / "out") == 1
    captured = capsys.readouterr()
    assert "test.jsonl:1: no key 'caption'" in captured.err
    assert "eval: none of the 1 videos is in" in captured.err
    assert cells(captured.out, "videos annotated") == ["5"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"video": "a.mp4", "caption": "a \\ud83d dog"}', "is not valid Unicode"),
        ('{"video": "a.mp4", "caption": "x", "caption": "y"}', "key 'caption' stands twice"),
        ('{"video": "../a.mp4", "caption": "x"}', "leaves the folder of videos; set data.videos"),
    ],
)
def test_a_line_that_training_would_refuse_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    (root / "captions.jsonl").write_text('{"video": "a.mp4", "caption": "x"}\n' + line + "\n")
    for config in (write_config(root, "retrieval"), write_config(root, "pretrain")):
        assert run("--config", config, "--out", root / "out") == 1
        error = capsys.readouterr().err
        assert f"{root / 'captions.jsonl'}:2: " in error and said in error


def test_questions(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = [
        ("a", "what is it?"),
        ("a", "is it " + "very " * 47 + "grey?"),
        ("b", "how many " + "very " * 60 + "grey frames?"),
    ]
    lines = [{"video": f"{video}.mp4", "question": question, "answer": "yes"} for video, question in questions]
    write_jsonl(root / "qa.jsonl", lines)
    config = write_config(root, "vqa", data={"manifest": "qa.jsonl"})
    assert run("--config", config, "--out", root / "out", "--strict") == 0
    text = capsys.readouterr().out
    assert cells(text, "videos annotated") == ["2"] and cells(text, "texts") == ["3"]
    assert cells(text, "words, min/median/max") == ["3/50/64"]
    # The second has 50 words, the third 64; 50 are kept, and 35 word pieces of those.
    assert cells(text, "cut to words") == ["50"] and cells(text, "cut to word pieces") == ["35"]
    assert text.count("1 (33.3 %)") == 1 and text.count("2 (66.7 %)") == 1


def test_choices_and_classes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options are the texts of a choice; of a classified video the name of its class is."""
    lines = [{"video": f"{video}.mp4", "options": ["one", "it is two"], "answer": 1} for video in ("a", "b")]
    write_jsonl(root / "choices.jsonl", lines)
    config = write_config(root, "choice", data={"eval_manifest": "choices.jsonl"})
    assert run("--config", config, "--out", root / "out", "--parts", "eval") == 0
    text = capsys.readouterr().out
    assert cells(text, "videos annotated") == ["2"] and cells(text, "texts") == ["4"]
    assert cells(text, "words, min/median/max") == ["1/2/3"]

    (root / "labels.csv").write_text("file,label\nvideos/a.mp4,big dog\nvideos/b.mp4,cat\n")
    config = write_config(root, "recognition", data={"dataset": "labelled", "train_split": "all"})
    assert run("--config", config, "--out", root / "out", "--parts", "train") == 0
    assert cells(capsys.readouterr().out, "words, min/median/max") == ["1/2/2"]


def test_sources_to_pretrain_on(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 30), "red").save(root / "red.png")
    (root / "images.tsv").write_text("a red picture\tred.png\na lost one\tlost.png\n???\tred.png\n")
    (root / "webvid.csv").write_text("videoid,name,page_dir\na,a grey video,.\nshort,a short grey video,.\n")
    sources = [{"file": "images.tsv", "media": "."}, {"file": "webvid.csv", "media": "videos", "weight": 2}]
    config = write_config(root, "pretrain", data={"sources": sources})
    assert run("--config", config, "--out", root / "out") == 0
    text = capsys.readouterr().out
    assert cells(text, "videos annotated") == ["2", "2"] and cells(text, "missing") == ["1", "0"]
    assert cells(text, "seconds, min/median/max") == ["-", "0.4/0.7/1.0"]
    assert "images.tsv; 1 rows without words left out" in text
    assert (root / "out" / "examples_webvid.csv.png").exists()
    with Image.open(root / "out" / "examples_images.tsv.png") as sheet:
        assert sheet.getpixel((8 + 56, 17 + 2 * 8 + 17 + 56)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "exam"], "--parts exam: the configuration has train"),
        (["data.rot=x"], "data.rot: unknown key"),
    ],
)
def test_wrong_commands(root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert run("--config", write_config(root, "retrieval"), *arguments) == 2
    assert message in capsys.readouterr().err


def test_shared_texts_are_those_of_several_videos() -> None:
    rng = np.random.default_rng(0)
    texts, videos = rng.integers(0, 30, 60), rng.integers(0, 40, 60)
    expected = sum(len({v for t, v in zip(texts, videos, strict=True) if t == text}) > 1 for text in texts)
    assert 0 < _shared(texts, videos) == expected < 60


def test_parts_of_one_video_are_counted_apart() -> None:
    table = PairTable.of([VideoTextRecord("/v.mp4", ("a",), 0.0, 1.0), VideoTextRecord("/v.mp4", ("b",), 1.0, 2.0)])
    assert table.num_videos == 2


def test_real_annotations(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """DiDeMo's test set, of which one video is there."""
    annotations = real_data / "annotations" / "didemo" / "test_data.json"
    (tmp_path / "videos").mkdir()
    (tmp_path / "test_data.json").symlink_to(annotations)
    name = json.loads(annotations.read_text())[0]["video"]
    (tmp_path / "videos" / f"{Path(name).stem}.mp4").symlink_to(real_data / "clips" / "videos" / "yoga.mp4")
    data = {"dataset": "didemo", "test_split": "test", "clean_captions": False, "max_tokens": 64}
    config = write_config(tmp_path, "retrieval", data=data)
    assert run("--config", config, "--parts", "test", "--out", tmp_path / "out") == 0
    captured = capsys.readouterr()
    assert cells(captured.out, "data") == ["didemo test"]
    assert [cells(captured.out, label)[0] for label in ("videos annotated", "there", "missing")] == [
        "1037",
        "1",
        "1036",
    ]
    assert "no word pieces: model.text.tokenizer: is made from the texts to train on" in captured.err
    seconds = float(cells(captured.out, "seconds, min/median/max")[0].split("/")[0])
    assert math.isclose(seconds, 10.0, abs_tol=0.1)
