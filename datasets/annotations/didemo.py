"""DiDeMo for paragraph retrieval: all descriptions of a video are joined into one paragraph."""

from pathlib import Path

from datasets.annotations import vindlu
from datasets.annotations.files import items_of, join_sentences, json_lines_of, json_of
from datasets.annotations.layout import AUTHORS, RELEASE, Format, VideoFolder, check_split, choose
from datasets.records import Annotations, VideoTextRecord
from datasets.remote.addresses import Folder

MERGED = "_merged"
SPLITS = ("train", "val", "test", *(f"{split}{MERGED}" for split in ("train", "val", "test")))


def read(root: Path, split: str, videos: Folder) -> Annotations:
    """Read the reference's `{split}.jsonl` (clip_name, caption), the authors' `{split}_data.json`, or VindLU's
    `didemo_ret_{split}.json`.

    The authors describe moments, in a list of (video, description, times) in which a video comes up several times, not
    always in neighbouring items. As usual in the field, its descriptions are joined in the order of the file, and the
    times are ignored. Names keep the suffix of the upload, or a bare dot; the files on disk are often called `.mp4`
    instead, or as well.

    Some videos are listed under two suffixes, each with its own descriptions. By default these are two paragraphs: 1094
    in "val" and 1037 in "test". "val_merged" and "test_merged" join them, which gives the 1065 and 1004 paragraphs of
    published results.
    """
    check_split("didemo", split, SPLITS)
    file = f"{split.removesuffix(MERGED)}_data.json"
    formats = [Format(AUTHORS, (file,))]
    if not split.endswith(MERGED):
        formats.insert(0, Format(RELEASE, (f"{split}.jsonl",)))
        formats.append(Format(vindlu.VINDLU, (f"didemo_ret_{split}.json",)))
    found = choose("didemo", split, root, formats)

    path = found.paths[0]
    if found.format.whose == RELEASE:
        texts = _paragraphs(path)
    elif found.format.whose == vindlu.VINDLU:
        texts = {name: tuple(paragraphs) for name, paragraphs in vindlu.read_paragraphs(path).items()}
    else:
        texts = _joined_descriptions(path, merge=split.endswith(MERGED))

    folder = VideoFolder(videos)
    records = [VideoTextRecord(folder.path(name), captions) for name, captions in texts.items()]
    return Annotations(records, "didemo", split, found.source, names=tuple(texts))


def _paragraphs(path: Path) -> dict[str, tuple[str, ...]]:
    texts: dict[str, list[str]] = {}
    for row in json_lines_of(path):
        texts.setdefault(row.text("clip_name"), []).append(row.text("caption"))
    return {name: tuple(captions) for name, captions in texts.items()}


def _joined_descriptions(path: Path, merge: bool) -> dict[str, tuple[str, ...]]:
    """The paragraph of each video, by its first name; `merge` ignores the suffix when it compares names."""
    descriptions: dict[str, list[str]] = {}
    first_names: dict[str, str] = {}
    for row in items_of(json_of(path), str(path)):
        name = row.text("video")
        if merge:
            name = first_names.setdefault(name.rpartition(".")[0] or name, name)
        descriptions.setdefault(name, []).append(row.text("description"))
    return {name: (join_sentences(sentences),) for name, sentences in descriptions.items()}
