"""Texts that no later step can take, keys given twice and paths that leave the folder: refused in every format."""

import json
import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets.annotations import manifest, public
from datasets.sources import open_source
from datasets.text import check_text
from tests.datasets.annotations.folders import error_of, write_json, write_lines
from tests.datasets.shards import write_index, write_tar

HALF = "a dog \ud83d runs"
NOT_UNICODE = "is not valid Unicode: character 7 is \\ud83d, half of a surrogate pair; write the whole character"
NUL = "a dog\0runs"
GOOD = {"video": "a.mp4", "caption": "fine"}


@pytest.mark.parametrize(("text", "found"), [(HALF, NOT_UNICODE), ("\udc36", "character 1 is \\udc36"), (NUL, "NUL")])
def test_what_is_wrong_with_a_text(text: str, found: str) -> None:
    assert found in error_of(lambda: check_text(text, "caption"))


@pytest.mark.parametrize("text", ["", "a dog \U0001f436 runs", "é\u0301 ÿ \u200d \ufeff", "two\nlines\tand\x1b more"])
def test_texts_that_can_be_taken(text: str) -> None:
    check_text(text, "caption")


def read_manifest(path: Path) -> object:
    return manifest.read(path, path.parent)


def read_source(path: Path) -> object:
    return open_source(path, path.parent)


@pytest.mark.parametrize("read", [read_manifest, read_source])
@pytest.mark.parametrize(
    ("line", "found"),
    [
        (json.dumps({"video": "b.mp4", "caption": HALF}), f"caption 'a dog \\ud83d runs' {NOT_UNICODE}"),
        (json.dumps({"video": "b.mp4", "caption": ["fine", HALF]}), NOT_UNICODE),
        (json.dumps({"video": "b.mp4", "caption": "\ud83d"}), "character 1 is \\ud83d"),
        (json.dumps({"video": "b.mp4", "caption": NUL}), "holds a NUL character"),
        (json.dumps({"video": "b\ud83d.mp4", "caption": "x"}), "video 'b\\ud83d.mp4' is not valid Unicode"),
        (json.dumps({"video": "b\0.mp4", "caption": "x"}), "holds a NUL character"),
        (
            '{"video": "b.mp4", "caption": "a dog", "caption": "a cat"}',
            "key 'caption' stands twice in one object; keep",
        ),
        ('{"video": "a.mp4", "caption": "x", "video": "b.mp4"}', "key 'video' stands twice"),
        (
            json.dumps({"video": "../b.mp4", "caption": "x"}),
            "video '../b.mp4' leaves the folder of videos; set data.videos",
        ),
        (json.dumps({"video": "sub/../../b.mp4", "caption": "x"}), "leaves the folder of videos"),
        (json.dumps({"video": "..", "caption": "x"}), "leaves the folder of videos"),
    ],
)
def test_lines_of_captions(tmp_path: Path, read: Callable[[Path], object], line: str, found: str) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    text = error_of(lambda: read(path))
    assert text.startswith(f"{path}:2: ") and found in text


@pytest.mark.parametrize("read", [read_manifest, read_source])
@pytest.mark.parametrize("video", ["sub/../b.mp4", "./b.mp4", "..b.mp4", "...", "a..b/c.mp4", "/else/../b.mp4"])
def test_paths_that_stay_inside_and_absolute_ones(tmp_path: Path, read: Callable[[Path], Any], video: str) -> None:
    read(write_lines(tmp_path / "captions.jsonl", [{"video": video, "caption": "x"}]))


@pytest.mark.parametrize("field", ["question", "answer", "question_id", "type"])
def test_lines_of_questions(tmp_path: Path, field: str) -> None:
    row = {"video": "a.mp4", "question": "what", "answer": ["dog"], "question_id": "q", "type": "kind"}
    path = write_lines(tmp_path / "qa.jsonl", [row | {field: [HALF] if field == "answer" else HALF}])
    text = error_of(lambda: manifest.read_questions(path, tmp_path))
    assert text.startswith(f"{path}:1: {field} ") and NOT_UNICODE in text


@pytest.mark.parametrize(
    ("name", "content", "place", "found"),
    [
        ("a.json", json.dumps([{"path": "a", "caption": "x"}, {"path": "b", "caption": HALF}]), ": item 2", "ud83d"),
        ("a.json", json.dumps([{"path": "../b.mp4", "caption": "x"}]), ": item 1", "set data.videos"),
        ("a.json", '[{"path": "a", "caption": "x", "caption": "y"}]', ": item 1", "key 'caption' stands twice"),
        ("a.csv", "videoid,page_dir,name\n1,p,x\n2,p,a\0b\n", ":3", "holds a NUL"),
        ("a.csv", "videoid,page_dir,name\n1,p,x\n2,../p,y\n", ":3", "video '../p/2.mp4' leaves the folder"),
        ("a.tsv", "x\ta.jpg\na\0b\tb.jpg\n", ":2", "holds a NUL"),
        ("a.tsv", "x\ta.jpg\ny\t../b.jpg\n", ":2", "video '../b.jpg' leaves the folder"),
    ],
)  # fmt: skip
def test_tables_and_lists(tmp_path: Path, name: str, content: str, place: str, found: str) -> None:
    (tmp_path / name).write_text(content)
    text = error_of(lambda: open_source(tmp_path / name, tmp_path))
    assert text.startswith(f"{tmp_path / name}{place}: ") and found in text


@pytest.mark.parametrize(
    ("member", "content", "found"),
    [
        ("0.json", {"caption": HALF}, NOT_UNICODE),
        ("0.json", {"caption": ["fine", HALF]}, NOT_UNICODE),
        ("0.json", '{"caption": "a", "caption": "b"}', "key 'caption' stands twice"),
        ("0.txt", NUL, "holds a NUL"),
    ],
)
def test_shards(tmp_path: Path, member: str, content: Any, found: str) -> None:
    write_tar(tmp_path / "a.tar", ("0.mp4", b"0"), (member, content))
    text = error_of(lambda: open_source(write_index(tmp_path, a=1), tmp_path))
    assert text.startswith(f"{tmp_path}/a.tar/{member}: ") and found in text


def queryd(root: Path) -> str:
    (root / "exists_train_list.txt").write_text("v1\nv2\n")
    captions = defaultdict(list, {"v1": [["fine"]], "v2": [["a", "dog"], ["\ud83d"]]})
    (root / "raw_captions_combined_filtered.pkl").write_bytes(pickle.dumps(captions, 3))
    return f"{root}/raw_captions_combined_filtered.pkl: 'v2': "


def didemo(root: Path) -> str:
    rows = [{"video": "a.mp4", "description": "fine"}, {"video": "b.mp4", "description": HALF}]
    return f"{write_json(root / 'train_data.json', rows)}: item 1: "


def activitynet_captions(root: Path) -> str:
    entry = {"duration": 3, "timestamps": [[0, 1]] * 2, "sentences": ["fine", HALF]}
    return f"{write_json(root / 'train.json', {'v_a': entry})}: 'v_a': "


def condensed_movies(root: Path) -> str:
    (root / "train_val_challf0.csv").write_text("videoid,caption,split\na,fine,train\nb,a\0dog,train\n")
    return f"{root}/train_val_challf0.csv:3: "


def msrvtt(root: Path) -> str:
    rows = [{"clip_name": "a", "caption": "fine"}, {"clip_name": "b", "caption": HALF}]
    return f"{write_lines(root / 'train.jsonl', rows)}:2: "


def activitynet_qa(root: Path) -> str:
    write_json(root / "train_q.json", [{"video_name": "a", "question": HALF, "question_id": "1"}])
    write_json(root / "train_a.json", [{"answer": "x", "type": 1, "question_id": "1"}])
    return f"{root}/train_q.json: item 0: "


def msrvtt_qa(root: Path) -> str:
    rows = [{"video_id": "video1", "question": "what", "answer": HALF}]
    return f"{write_lines(root / 'train.jsonl', rows)}:1: "


def msvd(root: Path) -> str:
    (root / "train_list.txt").write_text("a\nb\n")
    return f"{write_json(root / 'captions_msvd.json', {'a': ['fine'], 'b': [HALF]})}: 'b': "


def msvd_qa(root: Path) -> str:
    return (
        f"{write_json(root / 'train_qa.json', [{'id': 1, 'video_id': 1, 'question': HALF, 'answer': 'x'}])}: item 0: "
    )


def lsmdc(root: Path) -> str:
    (root / "LSMDC16_annos_training.csv").write_text("a\tfine\nb\ta\0dog\n")
    return f"{root}/LSMDC16_annos_training.csv:2: "


def ssv2_label(root: Path) -> str:
    rows = [{"id": "1", "label": "fine", "template": HALF}]
    return f"{write_json(root / 'something-something-v2-train.json', rows)}: item 0: "


def ssv2_template(root: Path) -> str:
    return f"{write_json(root / 'ssv2_ret_template_train.json', [{'caption': 'fine', 'video': ['a', HALF]}])}: item 0: "


def msrvtt_mc(root: Path) -> str:
    return f"{write_json(root / 'msrvtt_ret_train7k.json', [{'video': 'a.mp4', 'caption': HALF}])}: item 0: "


PUBLIC = [
    *(queryd, didemo, activitynet_captions, condensed_movies, msrvtt, activitynet_qa, msrvtt_qa),
    *(msvd, msvd_qa, lsmdc, ssv2_label, ssv2_template, msrvtt_mc),
]


@pytest.mark.parametrize("write", PUBLIC)
def test_public_datasets(tmp_path: Path, write: Callable[[Path], str]) -> None:
    place = write(tmp_path)
    text = error_of(lambda: public.read(write.__name__, tmp_path, "train", tmp_path))
    assert text.startswith(place) and ("is not valid Unicode" in text or "holds a NUL" in text)


@pytest.mark.parametrize("name", ["../b.mp4", "sub/../../b.mp4", "/else/b.mp4"])
def test_a_name_of_a_public_dataset_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "train_data.json", [{"video": name, "description": "x"}])
    text = error_of(lambda: public.read("didemo", tmp_path, "train", tmp_path / "videos"))
    assert f"video {name!r} leaves the folder {tmp_path / 'videos'}" in text and "set data.videos" in text


def test_every_public_dataset_is_tried() -> None:
    assert public.READERS.keys() <= globals().keys()
