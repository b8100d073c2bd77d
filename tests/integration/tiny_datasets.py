"""Four small videos laid out and annotated as each public dataset is, and as manifests and sources of one's own."""

import csv
import json
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from configs.schema import DataConfig
from tests.tiny_runs import caption
from tests.videos import write_video

NUM_VIDEOS = 4
SPLITS = ("train", "val", "test")
NUMBERS = range(NUM_VIDEOS)


def write_dataset(data: DataConfig, root: Path, questions: bool) -> Path:
    """Put into `root` the files that `data` reads, each split of the same videos; returns `root`."""
    root.mkdir(parents=True, exist_ok=True)
    if data.sources:
        _webvid_and_images(data, root)
    elif data.dataset == "manifest":
        names = [name for name in (data.manifest, data.eval_manifest, data.test_manifest) if name is not None]
        for name in names:
            rows = [_choice(number) if "choice" in name else _manifest_row(number, questions) for number in NUMBERS]
            (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        _videos(root / "videos", [f"clip{number}.mp4" for number in NUMBERS])
    else:
        WRITERS[data.dataset](root)
    return root


def _manifest_row(number: int, questions: bool) -> dict[str, str]:
    text = {"question": f"what {caption(number)}?", "answer": "a ball"} if questions else {"caption": caption(number)}
    return {"video": f"clip{number}.mp4", **text}


def _choice(number: int) -> dict[str, object]:
    return {"video": f"clip{number}.mp4", "options": [caption(other) for other in NUMBERS], "answer": number}


def _videos(folder: Path, names: Sequence[str]) -> None:
    """One video of noise under several names."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(3).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    first = write_video(folder / names[0], frames)
    for name in names[1:]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():  # another source's
            os.link(first, folder / name)


def _table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _queryd(root: Path) -> None:
    names = [f"clip-{number}" for number in NUMBERS]
    for split in SPLITS:
        (root / f"exists_{split}_list.txt").write_text("".join(f"{name}\n" for name in names))
    tokens = {name: [caption(number).split(), ["and", "ends"]] for number, name in enumerate(names)}
    (root / "raw_captions_combined_filtered.pkl").write_bytes(pickle.dumps(tokens))
    _videos(root / "videos", [f"{name}.mp4" for name in names])


def _didemo(root: Path) -> None:
    rows = [{"clip_name": f"clip{number}", "caption": caption(number)} for number in NUMBERS]
    for split in SPLITS:
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _videos(root / "videos", [f"clip{number}.mp4" for number in NUMBERS])


def _activitynet_captions(root: Path) -> None:
    entries = {
        f"v_{number}": {"duration": 1.0, "timestamps": [[0, 1]], "sentences": [caption(number)]} for number in NUMBERS
    }
    for part in ("train", "val_1", "val_2"):
        (root / f"{part}.json").write_text(json.dumps(entries))
    _videos(root / "videos", [f"v_{number}.mp4" for number in NUMBERS])


def _condensed_movies(root: Path) -> None:
    def rows(*splits: str) -> list[tuple[str, str, str]]:
        return [(f"{split}{number}", caption(number), split) for split in splits for number in NUMBERS]

    header = ("videoid", "caption", "split")
    _table(root / "train_val_challf0.csv", header, rows("train", "val"))
    _table(root / "test_challf0.csv", header, rows("test"))
    _videos(root / "videos", [f"{split}{number}.mkv" for split in SPLITS for number in NUMBERS])


def _msrvtt(root: Path) -> None:
    parts = ("train", "validate", "test")
    videos = [
        {"video_id": f"video{part * NUM_VIDEOS + number}", "split": split}
        for part, split in enumerate(parts)
        for number in NUMBERS
    ]
    sentences = [{"video_id": video["video_id"], "caption": caption(row)} for row, video in enumerate(videos)]
    (root / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    listed = [(f"video{number}", caption(number)) for number in NUMBERS]
    _table(root / "MSRVTT_train.9k.csv", ("video_id",), [row[:1] for row in listed])
    _table(root / "MSRVTT_JSFUSION_test.csv", ("video_id", "sentence"), listed)
    _videos(root / "videos", [f"{video['video_id']}.mp4" for video in videos])


def _activitynet_qa(root: Path) -> None:
    for split in SPLITS:
        ids = [f"{split}_{number}" for number in NUMBERS]
        questions = [
            {"video_name": str(number), "question": f"is {caption(number)}", "question_id": ids[number]}
            for number in NUMBERS
        ]
        answers = [{"question_id": question_id, "answer": "yes", "type": 3} for question_id in ids]
        (root / f"{split}_q.json").write_text(json.dumps(questions))
        (root / f"{split}_a.json").write_text(json.dumps(answers))
    _videos(root / "videos", [f"v_{number}.mp4" for number in NUMBERS])


def _msrvtt_qa(root: Path) -> None:
    rows = [
        {"id": number, "video_id": number, "question": f"what {caption(number)}?", "answer": "ball", "category_id": 1}
        for number in NUMBERS
    ]
    for split in SPLITS:
        (root / f"{split}_qa.json").write_text(json.dumps(rows))
    _videos(root / "videos", [f"video{number}.mp4" for number in NUMBERS])


def _msvd(root: Path) -> None:
    names = [f"clip_{number}_1_2" for number in NUMBERS]
    for split in SPLITS:
        (root / f"{split}_list.txt").write_text("\n".join(names))
    captions = {name: [caption(number)] for number, name in enumerate(names)}
    (root / "captions_msvd.json").write_text(json.dumps(captions))
    _videos(root / "videos", [f"{name}.mp4" for name in names])


def _msvd_qa(root: Path) -> None:
    rows = [(number + 1, f"what {caption(number)}", "ball", number) for number in NUMBERS]
    for split in SPLITS:
        _table(root / f"{split}.csv", ("video", "question", "answer", "qid"), rows)
    _videos(root / "videos", [f"vid{number + 1}.mp4" for number in NUMBERS])


def _lsmdc(root: Path) -> None:
    names = [f"1001_Film_00.0{number}.00.000-00.0{number}.02.500" for number in NUMBERS]
    lines = [f"{name}\t0\t1\t0\t1\t{caption(number)}\n" for number, name in enumerate(names)]
    for file in ("annos_training", "annos_val", "challenge_1000_publictect"):
        (root / f"LSMDC16_{file}.csv").write_text("".join(lines))
    _videos(root / "videos", [f"1001_Film/{name}.mp4" for name in names])


def _ssv2(text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        rows = [{"caption": caption(number), "video": [f"{number}.webm", f"{number + 2}.webm"]} for number in (0, 1)]
        for split in ("train", "val_small"):
            (root / f"ssv2_ret_{text}_{split}.json").write_text(json.dumps(rows))
        _videos(root / "videos", [f"{number}.mp4" for number in NUMBERS])

    return write


def _msrvtt_mc(root: Path) -> None:
    rows = [{"video": f"video{number}.mp4", "caption": caption(number)} for number in NUMBERS]
    (root / "msrvtt_ret_train7k.json").write_text(json.dumps(rows))
    options = [caption(number) for number in NUMBERS]
    choices = [{"video": f"video{number}.mp4", "caption": options, "answer": number} for number in NUMBERS]
    (root / "msrvtt_mc_test.json").write_text(json.dumps(choices))
    _videos(root / "videos", [f"video{number}.mp4" for number in NUMBERS])


def _webvid_and_images(data: DataConfig, root: Path) -> None:
    """Half of the pairs to a source, or all of them where sources take turns.

    A still is a video of one frame as far as the reader of the table cares.
    """
    for source in data.sources:
        table, media = root / source.file, root / (source.media or "videos")
        if source.kind == "speech":
            _speech(table, media)
        elif table.suffix == ".jsonl":
            table.write_text("".join(json.dumps(_manifest_row(number, False)) + "\n" for number in NUMBERS))
            _videos(media, [f"clip{number}.mp4" for number in NUMBERS])
        elif table.suffix == ".csv":
            numbers = NUMBERS if data.order == "turns" else NUMBERS[:2]
            _table(table, ("videoid", "name", "page_dir"), [(n, caption(n), "0_9") for n in numbers])
            _videos(media, [f"0_9/{number}.mp4" for number in numbers])
        elif table.suffix == ".json":
            table.parent.mkdir(parents=True, exist_ok=True)
            rows = [{"video": f"{number}.mp4", "caption": caption(number)} for number in NUMBERS]
            table.write_text(json.dumps(rows))
            _videos(media, [row["video"] for row in rows])
        else:
            table.parent.mkdir(parents=True, exist_ok=True)
            table.write_text("".join(f"{caption(number)}\timage{number}.mp4\n" for number in NUMBERS[2:]))
            _videos(media, [f"image{number}.mp4" for number in NUMBERS[2:]])


def _labelled(root: Path) -> None:
    names = [f"{'ab'[number % 2]}/clip{number}.mp4" for number in NUMBERS]
    rows = [[name, name[0], f"group{number}", split] for split in SPLITS for number, name in enumerate(names)]
    _table(root / "labels.csv", ["file", "label", "group", "split"], rows)
    _videos(root, names)


def _hmdb51(root: Path) -> None:
    folder = root / "testTrainMulti_7030_splits"
    folder.mkdir(parents=True)
    for place, name in enumerate(("clap", "wave")):
        # The first two clips of a class are for training, the others for the test.
        lines = [f"clip{place}{number}.avi {1 + number // 2} " for number in NUMBERS]
        for split in (1, 2, 3):
            (folder / f"{name}_test_split{split}.txt").write_text("\n".join(lines) + "\n")
    _videos(root / "videos", [f"clip{place}{number}.avi" for place in (0, 1) for number in NUMBERS])


def _ucf101(root: Path) -> None:
    names = [f"{'AB'[number % 2]}/v_{'AB'[number % 2]}_g0{number}_c01.avi" for number in NUMBERS]
    (root / "classInd.txt").write_text("1 A\r\n2 B\r\n")
    (root / "testlist01.txt").write_text("".join(f"{name}\r\n" for name in names))
    (root / "trainlist01.txt").write_text("".join(f"{name} {'AB'.index(name[0]) + 1}\r\n" for name in names))
    _videos(root / "videos", names)


def _kinetics400(root: Path) -> None:
    (root / "label_map_k400.txt").write_text("abseiling\nair drumming\n")
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("".join(f"{split}/clip{number}.mp4 {number % 2}\n" for number in NUMBERS))
    _videos(root / "videos", [f"clip{number}.mp4" for number in NUMBERS])


def _ssv2_mc(root: Path) -> None:
    rows = [{"clip_name": f"{n}.webm", "options": [f"Moving {k}" for k in range(174)], "answer": n} for n in NUMBERS]
    (root / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _videos(root / "videos", [f"{number}.mp4" for number in NUMBERS])


def _speech(table: Path, media: Path) -> None:
    """All videos with a sentence in each quarter of six seconds: a manifest, or a list of YT-Temporal."""
    table.parent.mkdir(parents=True, exist_ok=True)
    words = {number: [[0.25 + 1.5 * part, caption(number, part)] for part in range(4)] for number in NUMBERS}
    if table.suffix == ".jsonl":
        rows = [{"video": f"clip{number}.mp4", "words": words[number], "duration": 6} for number in NUMBERS]
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        _videos(media, [f"clip{number}.mp4" for number in NUMBERS])
        return

    table.write_text("".join(f"{line}\n" for line in ("Name", *(f"a/data/{number}.mp4" for number in NUMBERS))))
    _videos(media, [f"a/data/{number}.mp4" for number in NUMBERS])
    (media / "a" / "annotations").mkdir()
    for number in NUMBERS:
        content = {
            "subtitles": [{"word": word, "time": time} for time, word in words[number]],
            "denoised": [{"cleanasr": " ".join(word for _, word in words[number])}],
            "info": {"duration": 6},
        }
        (media / "a" / "annotations" / f"{number}.json").write_text(json.dumps(content))


WRITERS: dict[str, Callable[[Path], None]] = {
    "queryd": _queryd,
    "didemo": _didemo,
    "activitynet_captions": _activitynet_captions,
    "condensed_movies": _condensed_movies,
    "msrvtt": _msrvtt,
    "activitynet_qa": _activitynet_qa,
    "msrvtt_qa": _msrvtt_qa,
    "msvd": _msvd,
    "msvd_qa": _msvd_qa,
    "lsmdc": _lsmdc,
    "ssv2_label": _ssv2("label"),
    "ssv2_template": _ssv2("template"),
    "msrvtt_mc": _msrvtt_mc,
    "labelled": _labelled,
    "hmdb51": _hmdb51,
    "ucf101": _ucf101,
    "kinetics400": _kinetics400,
    "ssv2_mc": _ssv2_mc,
}
