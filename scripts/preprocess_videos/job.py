"""One video to make small; this is what the worker processes do, which cannot import what a `__main__` defines."""

from dataclasses import dataclass
from pathlib import Path

import av

from datasets.transcoding.recipes import Recipe
from datasets.transcoding.transcode import Written, transcode
from scripts.parts.worker_pool import Beat
from scripts.preprocess_videos.ledger import Video


@dataclass(frozen=True)
class Job:
    """One video for a worker: read `source`, write `temporary`."""

    video: Video
    source: Path
    temporary: Path
    recipe: Recipe


def work(job: Job, beat: Beat) -> Written:
    """What a worker does with one video."""
    try:
        return transcode(job.source, job.temporary, job.recipe, beat)
    except av.FFmpegError as error:
        # Without the number and the path, which the record has already.
        raise ValueError(error.strerror) from error
