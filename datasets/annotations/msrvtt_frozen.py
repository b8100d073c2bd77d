"""MSR-VTT as Frozen in Time packed it and TVTSv2 reads it: `MSR_VTT.json`, lists of videos, and numbers of captions.

The archive has `annotation/MSR_VTT.json` and `high-quality/structured-symlinks/`; the files may also lie loose.
"""

from pathlib import Path

from datasets.annotations import plain_pickle
from datasets.annotations.files import GET_IT_AGAIN, items_of, json_of, lines_of
from datasets.annotations.layout import Format, Found

FROZEN = "Frozen in Time's annotations"
CAPTIONS = "MSR_VTT.json"
CAPTION_NUMBERS = "jsfusion_val_caption_idx.pkl"
LISTS = {
    "train_9k": "train_list_jsfusion.txt",
    "test_1k": "val_list_jsfusion.txt",
    "full_train": "train_list_full.txt",
    "full_val": "val_list_full.txt",
    "full_test": "test_list_full.txt",
}
ARCHIVED_LISTS = "high-quality/structured-symlinks/"
FOLDERS = (("", ""), ("annotation/", ARCHIVED_LISTS), ("", ARCHIVED_LISTS))
"""Where captions and lists are: side by side, as in the archive, or as TVTSv2 has them, captions apart."""


def formats(part: str) -> list[Format]:
    """The forms of a part, by the folders of its files; none for a part that has no list."""
    if part not in LISTS:
        return []
    numbers = (CAPTION_NUMBERS,) if part == "test_1k" else ()
    return [
        Format(FROZEN, (captions + CAPTIONS, *(lists + name for name in (LISTS[part], *numbers))), part)
        for captions, lists in FOLDERS
    ]


def read(found: Found) -> dict[str, list[str]]:
    """The captions of each listed video, in the order of the list; of `test_1k` the one that counts."""
    captions_path, list_path, *numbers_path = found.paths
    captions = _captions(captions_path)

    texts: dict[str, list[str]] = {}
    for place, name in lines_of(list_path):
        if name in texts:
            raise ValueError(f"{place}: {name!r} is listed before; {GET_IT_AGAIN}")
        if name not in captions:
            raise ValueError(f"{place}: {name!r} is not in {captions_path}; get both files from one place")
        texts[name] = captions[name]
    return _chosen(texts, numbers_path[0]) if numbers_path else texts


def _captions(path: Path) -> dict[str, list[str]]:
    """All captions of each video, in the order of the file, by which the caption numbers count."""
    content = json_of(path)
    if not isinstance(content, dict) or "annotations" not in content:
        raise ValueError(f"{path}: not an object with annotations; {GET_IT_AGAIN}")
    captions: dict[str, list[str]] = {}
    for row in items_of(content["annotations"], f"{path}: annotations"):
        captions.setdefault(row.text("image_id"), []).append(row.text("caption"))
    return captions


def _chosen(texts: dict[str, list[str]], path: Path) -> dict[str, list[str]]:
    """For each video the caption whose number, from 0, the pickle has."""
    numbers = plain_pickle.load(path)
    if not isinstance(numbers, dict):
        raise ValueError(f"{path}: found {type(numbers).__name__}, not a number for each video; {GET_IT_AGAIN}")

    chosen = {}
    for name, captions in texts.items():
        number = numbers.get(name)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(captions):
            raise ValueError(
                f"{path}: {name!r} has the number {number!r}, and its {len(captions)} captions count from 0; "
                f"{GET_IT_AGAIN}"
            )
        chosen[name] = [captions[number]]
    return chosen
