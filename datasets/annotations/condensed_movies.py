"""Condensed Movies: one description per clip, from the authors' tables or from the tables of their challenge."""

from pathlib import Path

from datasets.annotations.files import GET_IT_AGAIN, by_unique, csv_of
from datasets.annotations.layout import AUTHORS, Format, Found, VideoFolder, check_split, choose
from datasets.records import Annotations, VideoTextRecord
from datasets.remote.addresses import Folder

SPLITS = ("train", "val", "test")
CHALLENGE = "the challenge's annotations"
CHALLENGE_TABLES = ("train_val_challf0.csv", "test_challf0.csv")


def read(root: Path, split: str, videos: Folder) -> Annotations:
    """Read the challenge's `train_val_challf0.csv` and `test_challf0.csv`, or the authors' clips, descriptions, split.

    The reference uses the challenge's tables, so they take precedence. If one of the two exists, no split is read from
    the authors' tables: these split the clips differently, and a clip could be in both training and test. The challenge
    does not publish which test caption belongs to which clip: the clip and caption of a row are then not a pair, and
    `labelled` is False. The authors' tables split whole movies; clips without a description are skipped, and `source`
    says how many. Clips are `.mkv`, in one folder or in one folder per year.
    """
    check_split("condensed_movies", split, SPLITS)

    table = CHALLENGE_TABLES[split == "test"]
    authors = Format(AUTHORS, ("clips.csv", "descriptions.csv", "split.csv"))
    folders = (root, root / "annotations")
    is_challenge = any((folder / name).is_file() for folder in folders for name in CHALLENGE_TABLES)
    formats = (Format(CHALLENGE, (table,)), *(() if is_challenge else (authors,)))
    found = choose("condensed_movies", split, root, formats)

    folder = VideoFolder(videos, expected=".mkv")
    if found.format is authors:
        return _read_authors(found, split, folder)

    captions = _read_challenge(found.paths[0], split)
    records = [VideoTextRecord(folder.path(name), (caption,)) for name, caption in captions.items()]
    names = tuple(captions)
    return Annotations(records, "condensed_movies", split, found.source, labelled=split != "test", names=names)


def _read_challenge(path: Path, split: str) -> dict[str, str]:
    """The captions of a split, by the name of the clip."""
    rows = by_unique(csv_of(path, ("videoid", "caption", "split")), "videoid")
    for row in rows.values():
        _check_split_of_row(row.place, row.text("split"))
    captions = {name: row.text("caption") for name, row in rows.items() if row.text("split") == split}
    if not captions:
        raise ValueError(f"{path}: no row of split {split!r}; {GET_IT_AGAIN}")
    return captions


def _read_authors(found: Found, split: str, folder: VideoFolder) -> Annotations:
    clips_path, descriptions_path, split_path = found.paths
    split_of_movie = by_unique(csv_of(split_path, ("imdbid", "split")), "imdbid")
    for row in split_of_movie.values():
        _check_split_of_row(row.place, row.text("split"))

    descriptions = by_unique(csv_of(descriptions_path, ("videoid", "description")), "videoid")

    records: dict[str, VideoTextRecord] = {}
    undescribed = 0
    for name, clip in by_unique(csv_of(clips_path, ("videoid", "imdbid")), "videoid").items():
        movie = clip.text("imdbid")
        if movie not in split_of_movie:
            raise ValueError(f"{clip.place}: movie {movie!r} is not in {split_path}; get all tables from one place")
        if split_of_movie[movie].text("split") != split:
            continue
        if name in descriptions:
            records[name] = VideoTextRecord(folder.path(name), (descriptions[name].text("description"),))
        else:
            undescribed += 1

    if not records:
        raise ValueError(f"{split_path}: no clip of split {split!r} has a description; {GET_IT_AGAIN}")
    source = f"{found.source}; {undescribed} clips without a description are left out"
    return Annotations(list(records.values()), "condensed_movies", split, source, names=tuple(records))


def _check_split_of_row(place: str, split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"{place}: split is {split!r}, not one of {', '.join(SPLITS)}; {GET_IT_AGAIN}")
