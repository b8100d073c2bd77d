"""Lists of videos, one name per line, which restrict a split to the videos that published results are on."""

import logging
from dataclasses import replace
from pathlib import Path

from datasets.annotations.files import GET_IT_AGAIN, lines_of
from datasets.annotations.layout import VIDEO_SUFFIXES, find_file
from datasets.records import Annotations, Record

logger = logging.getLogger(__name__)


def restrict(annotations: Annotations[Record], root: Path, file: str) -> Annotations[Record]:
    """Keep the records of the videos in a list in `root` or `root/annotations`, in the order of the annotations.

    A line selects the video with exactly this name, or else all videos whose names differ only by the suffix of a
    video. So if DiDeMo has a video under two suffixes, the list selects the name it contains.

    `source` and `video_list` record the restriction. ValueError if there is no such file, if a name is repeated, or if
    the annotations contain none of its videos.
    """
    path = find_file(file, root)
    if path is None:
        raise ValueError(f"{root / file}: no such list of videos; set data.train_list, eval_list or test_list to one")

    places: dict[str, str] = {}
    for place, name in lines_of(path):
        if name in places:
            raise ValueError(f"{place}: {name!r} stands at {places[name]} too; {GET_IT_AGAIN}")
        places[name] = place

    known = set(annotations.names)
    by_stem: dict[str, list[str]] = {}
    for name in known:
        by_stem.setdefault(_stem(name), []).append(name)

    chosen: set[str] = set()
    unknown = []
    for name, place in places.items():
        meant = [name] if name in known else by_stem.get(_stem(name), [])
        chosen.update(meant)
        if not meant:
            unknown.append(f"{place}: {name!r}")

    kept = [row for row, name in enumerate(annotations.names) if name in chosen]
    if not kept:
        raise ValueError(f"{unknown[0]} is not in {annotations.source}, nor is any other line's; name another list")
    if unknown:
        logger.warning("%d videos of %s have no annotations, the first is %s", len(unknown), path, unknown[0])

    without = f", {len(unknown)} listed videos have none" if unknown else ""
    return replace(
        annotations,
        records=[annotations.records[row] for row in kept],
        names=tuple(annotations.names[row] for row in kept),
        source=f"{annotations.source}; {len(kept)} of {len(known)} as {file} lists them{without}",
        video_list=file,
    )


def _stem(name: str) -> str:
    """The name without the suffix of a video, or a bare dot, at its end."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and (not suffix or f".{suffix.lower()}" in VIDEO_SUFFIXES) else name
