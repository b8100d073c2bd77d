"""MSR-VTT: about 20 captions per video, in the three splits that are in use."""

from pathlib import Path

from datasets.annotations import msrvtt_frozen, vindlu
from datasets.annotations.files import GET_IT_AGAIN, by_unique, csv_of, items_of, json_lines_of, json_of
from datasets.annotations.layout import AUTHORS, RELEASE, Format, VideoFolder, check_split, choose
from datasets.records import Annotations, VideoTextRecord
from datasets.remote.addresses import Folder

CAPTIONS = "MSRVTT_data.json"
LISTS = {"train_9k": "MSRVTT_train.9k.csv", "train_7k": "MSRVTT_train.7k.csv", "test_1k": "MSRVTT_JSFUSION_test.csv"}
"""The lists of the usual split for retrieval (1k-A), which has no validation set."""
VINDLU = {
    "train_9k": "msrvtt_ret_train9k.json",
    "train_7k": "msrvtt_ret_train7k.json",
    "test_1k": "msrvtt_ret_test1k.json",
}
"""The same as repackaged, one caption a row; UMT trains and evaluates on these."""
FULL = {"full_train": "train", "full_val": "validate", "full_test": "test"}
"""The authors' own split, 6513, 497 and 2990 videos, and its name in their file; most papers caption on it."""
SPLITS = ("train", "val", "test", *LISTS, *FULL)


def read(root: Path, split: str, videos: Folder) -> Annotations:
    """Read the reference's `{split}.jsonl` (clip_name, caption), the authors' file with the lists of the 1k split,
    VindLU's `msrvtt_ret_{train9k,train7k,test1k}.json`, or what TVTSv2 reads (`msrvtt_frozen`).

    Without the reference's files, "train" is the list of 9000 videos, or else of 7000, and "val" and "test" are both
    the 1000 test videos. They are returned as "train_9k", "train_7k" and "test_1k", which may also be requested. Only
    the caption in the list is used for a test video. "full_train", "full_val" and "full_test" are the authors' split.
    """
    check_split("msrvtt", split, SPLITS)
    found = choose("msrvtt", split, root, formats(split))
    part = found.format.split or split
    if found.format.whose == RELEASE:
        texts = _rows_by_video(found.paths[0])
    elif found.format.whose == vindlu.VINDLU:
        texts = vindlu.read_captions(found.paths[0])
    elif found.format.whose == msrvtt_frozen.FROZEN:
        texts = msrvtt_frozen.read(found)
    elif part == "test_1k":
        rows = by_unique(csv_of(found.paths[0], ("video_id", "sentence")), "video_id")
        texts = {name: [row.text("sentence")] for name, row in rows.items()}
    elif part in FULL:
        texts = _captions(found.paths[0], FULL[part])
    else:
        texts = _listed(found.paths[0], found.paths[1])

    folder = VideoFolder(videos)
    records = [VideoTextRecord(folder.path(name), tuple(captions)) for name, captions in texts.items()]
    return Annotations(records, "msrvtt", part, found.source, names=tuple(texts))


def formats(split: str) -> list[Format]:
    """The forms in which a split is published, in the order in which they are looked for."""
    if split in FULL:
        return [Format(AUTHORS, (CAPTIONS,)), *msrvtt_frozen.formats(split)]
    if split in LISTS:
        return [_list_format(split), Format(vindlu.VINDLU, (VINDLU[split],), split), *msrvtt_frozen.formats(split)]

    parts = ("train_9k", "train_7k") if split == "train" else ("test_1k",)
    repackaged = [Format(vindlu.VINDLU, (VINDLU[part],), part) for part in parts]
    frozen = [each for part in parts for each in msrvtt_frozen.formats(part)]
    return [Format(RELEASE, (f"{split}.jsonl",)), *(_list_format(part) for part in parts), *repackaged, *frozen]


def _list_format(part: str) -> Format:
    if part == "test_1k":
        return Format("the list of the 1k test split", (LISTS[part],), part)
    return Format(f"{AUTHORS} and a list of the 1k split", (CAPTIONS, LISTS[part]), part)


def _rows_by_video(path: Path) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for row in json_lines_of(path):
        texts.setdefault(row.text("clip_name"), []).append(row.text("caption"))
    return texts


def _captions(path: Path, official_split: str | None) -> dict[str, list[str]]:
    """The sentences of every video, or of those in one part of the authors' split, in the order of the videos."""
    content = json_of(path)
    if not isinstance(content, dict) or not {"videos", "sentences"} <= content.keys():
        raise ValueError(f"{path}: not an object with videos and sentences; {GET_IT_AGAIN}")

    videos = by_unique(items_of(content["videos"], f"{path}: videos"), "video_id")
    texts: dict[str, list[str]] = {name: [] for name in videos}
    for row in items_of(content["sentences"], f"{path}: sentences"):
        name = row.text("video_id")
        if name not in texts:
            raise ValueError(f"{row.place}: video_id {name!r} is not among the videos; {GET_IT_AGAIN}")
        texts[name].append(row.text("caption"))

    chosen = {
        name: texts[name]
        for name, video in videos.items()
        if official_split is None or video.text("split") == official_split
    }

    for name, captions in chosen.items():
        if not captions:
            raise ValueError(f"{videos[name].place}: {name!r} has no sentence; {GET_IT_AGAIN}")
    if not chosen:
        raise ValueError(f"{path}: no video of split {official_split!r}; {GET_IT_AGAIN}")
    return chosen


def _listed(captions_path: Path, list_path: Path) -> dict[str, list[str]]:
    texts = _captions(captions_path, None)
    listed = by_unique(csv_of(list_path, ("video_id",)), "video_id")
    for name, row in listed.items():
        if name not in texts:
            raise ValueError(f"{row.place}: {name!r} is not in {captions_path}; get both files from one place")
    return {name: texts[name] for name in listed}
