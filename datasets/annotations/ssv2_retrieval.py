"""Something-Something V2 for retrieval, by labels that name the objects or by templates that do not.

Many videos share a template, and some a label: each finds all of them with `evaluation.same_captions: together`.
"""

import re
from functools import partial
from pathlib import Path

from datasets.annotations import vindlu
from datasets.annotations.files import by_unique, items_of, json_of
from datasets.annotations.layout import AUTHORS, Format, VideoFolder, check_split, choose
from datasets.records import Annotations, VideoTextRecord
from datasets.remote.addresses import Folder

SPLITS = ("train", "val", "test", "val_small", "val_full")
TRAIN, VALIDATION = "something-something-v2-train.json", "something-something-v2-validation.json"


def read(text: str, root: Path, split: str, videos: Folder) -> Annotations:
    """Read VindLU's `ssv2_ret_{text}_{train,val_small}.json`, or the authors' list of videos.

    The authors' rows have `id`, `label` and `template`; brackets around what a template leaves open are taken away.
    "val" and "test" are VindLU's part of the validation set, which published numbers are of, and come back as
    "val_small"; without its file they are the whole validation set, "val_full".
    """
    dataset = f"ssv2_{text}"
    check_split(dataset, split, SPLITS)
    small = Format(vindlu.VINDLU, (f"ssv2_ret_{text}_val_small.json",), "val_small")
    full = Format(AUTHORS, (VALIDATION,), "val_full")
    train = (Format(vindlu.VINDLU, (f"ssv2_ret_{text}_train.json",)), Format(AUTHORS, (TRAIN,)))
    formats = {"train": train, "val_small": (small,), "val_full": (full,)}.get(split, (small, full))

    found = choose(dataset, split, root, formats)
    path = found.paths[0]
    if found.format.whose == AUTHORS:
        rows = by_unique(items_of(json_of(path), str(path)), "id")
        texts = {f"{name}.webm": [re.sub(r"[\[\]]", "", row.text(text))] for name, row in rows.items()}
    else:
        texts = vindlu.read_shared_captions(path)

    folder = VideoFolder(videos, expected=".webm")
    records = [VideoTextRecord(folder.path(name), tuple(captions)) for name, captions in texts.items()]
    return Annotations(records, dataset, found.format.split or split, found.source, names=tuple(texts))


read_by_label = partial(read, "label")
read_by_template = partial(read, "template")
