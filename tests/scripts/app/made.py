"""An index and checkpoints of a size for tests of the page."""

from pathlib import Path
from typing import NamedTuple

import pytest

from scripts import search
from tests.integration.runs import train
from tests.tiny_runs import write_data, write_questions
from tests.videos import grey_steps, write_video

ODD_NAME = "<b onclick=alert(1)>&amp;.mkv"
BROKEN = "zz_broken.mp4"
FAILED = "never_one.mp4"
ONE_EPOCH = {"max_epochs": 1, "batch_size": 4}


class Made(NamedTuple):
    """Folders: `videos` are indexed by the checkpoint `searching`, which also writes captions."""

    videos: Path
    index: Path
    searching: Path
    answering: Path


def make(root: Path) -> Made:
    """Small videos, one of an odd name and a format that browsers do not play, one that broke after indexing.

    FAILED never was a video, and so is not in the index.
    """
    write_questions(write_data(root, [1] * 6), [1] * 6)
    searching = train(root, root / "pretrain", "pretrain", train=ONE_EPOCH) / "checkpoint_last"
    answering = train(root, root / "vqa", "vqa", train=ONE_EPOCH) / "checkpoint_best"
    write_video(root / "videos" / ODD_NAME, grey_steps(20), codec="mpeg4")
    broken = write_video(root / "videos" / BROKEN, grey_steps(3))
    (root / "videos" / FAILED).write_bytes(b"no video")
    words = ["index", root / "videos", "--checkpoint", searching, "--index", root / "index", "--workers", 0]
    with pytest.raises(SystemExit) as ended:
        search.main([str(word) for word in words])
    assert ended.value.code == 1  # of FAILED
    broken.write_bytes(b"not any more")
    return Made(root / "videos", root / "index", searching, answering)
