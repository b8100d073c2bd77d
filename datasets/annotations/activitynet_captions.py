"""ActivityNet Captions for paragraph retrieval: all sentences of a video are joined into one paragraph."""

from pathlib import Path

from datasets.annotations import vindlu
from datasets.annotations.files import entries_of, items_of, json_of
from datasets.annotations.layout import AUTHORS, RELEASE, Format, VideoFolder, check_split, choose
from datasets.records import Annotations, VideoTextRecord
from datasets.remote.addresses import Folder

# The test captions were never published: the field, and the paper, report on the first validation set.
HONEST_SPLITS = {"train": "train", "val": "val_1", "test": "val_1", "val_1": "val_1", "val_2": "val_2"}

VINDLU = {"train": ("anet_ret_train.json",), "val_1": ("anet_ret_val_1.json", "anet_ret_val.json")}


def read(root: Path, split: str, videos: Folder) -> Annotations:
    """Read the reference's `{train,val}.json` (a list of video, caption), the authors' `{train,val_1,val_2}.json`, or
    VindLU's `anet_ret_{train,val}.json`.

    The authors' files map the name of a video to (duration, timestamps, sentences). Both releases have a `train.json`,
    so the content decides which one it is. "val" and "test" are the first validation set and come back as "val_1".
    """
    check_split("activitynet_captions", split, tuple(HONEST_SPLITS))

    part = HONEST_SPLITS[split]
    release = {"train": "train.json", "val_1": "val.json"}
    names = dict.fromkeys(name for name in (release.get(part), f"{part}.json") if name is not None)
    repackaged = VINDLU.get(part, ())
    found = choose("activitynet_captions", split, root, [Format("", (name,)) for name in (*names, *repackaged)])

    path = found.paths[0]
    content = json_of(path)
    folder = VideoFolder(videos)

    texts: dict[str, list[str]] = {}
    if path.name in repackaged:
        whose = vindlu.VINDLU
        texts = vindlu.read_paragraphs(path)
    elif isinstance(content, dict):
        whose = AUTHORS
        for name, entry in entries_of(content, str(path)).items():
            texts[name] = [entry.paragraph("sentences")]
    else:
        whose = RELEASE
        for row in items_of(content, str(path)):
            texts.setdefault(row.text("video"), []).append(row.paragraph("caption"))

    records = [VideoTextRecord(folder.path(name), tuple(captions)) for name, captions in texts.items()]
    return Annotations(records, "activitynet_captions", part, whose + found.source, names=tuple(texts))
