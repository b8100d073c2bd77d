"""The public datasets: which parser reads each of them, from the files that its authors or the reference publish."""

from collections.abc import Callable
from pathlib import Path

from datasets.annotations import (
    activitynet_captions,
    activitynet_qa,
    condensed_movies,
    didemo,
    lsmdc,
    msrvtt,
    msrvtt_mc,
    msrvtt_qa,
    msvd,
    msvd_qa,
    queryd,
    ssv2_retrieval,
)
from datasets.records import Annotations
from datasets.remote.addresses import Folder

READERS: dict[str, Callable[[Path, str, Folder], Annotations]] = {
    "queryd": queryd.read,
    "didemo": didemo.read,
    "activitynet_captions": activitynet_captions.read,
    "condensed_movies": condensed_movies.read,
    "msrvtt": msrvtt.read,
    "activitynet_qa": activitynet_qa.read,
    "msrvtt_qa": msrvtt_qa.read,
    "msvd": msvd.read,
    "msvd_qa": msvd_qa.read,
    "lsmdc": lsmdc.read,
    "ssv2_label": ssv2_retrieval.read_by_label,
    "ssv2_template": ssv2_retrieval.read_by_template,
    "msrvtt_mc": msrvtt_mc.read,
}


def read(dataset: str, root: Path, split: str, videos: Folder) -> Annotations:
    """Read a split of a public dataset from the files in `root` or `root/annotations`.

    A video found in `videos` or a folder below it, with any video suffix, gets that path; a missing one gets the path
    where it is expected. ValueError, in one line, says which file is missing, or where a file is malformed.
    """
    return READERS[dataset](root, split, videos)
