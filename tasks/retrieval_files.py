"""The files that an evaluation of retrieval writes: each text's best videos, and a challenge's submission."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tasks.annotations import Split
from tasks.metrics import submission

logger = logging.getLogger(__name__)


def rankings(captions: Sequence[str], names: Sequence[str], videos: NDArray, scores: NDArray) -> list[dict[str, Any]]:
    """The rows of predictions.jsonl: each text, and its best videos with their scores."""
    return [
        {"text": caption, "videos": [names[video] for video in row], "scores": values.tolist()}
        for caption, row, values in zip(captions, videos, scores, strict=True)
    ]


def submission_files(
    split: Split, positions: list[int], t2v: NDArray, v2t: NDArray
) -> dict[str, Callable[[Path], None]]:
    """Writers of the challenge's files: scores of all annotated texts and videos, in the order of the annotations.

    `t2v` (texts, V) and `v2t` (V, texts) hold the scores of the videos at `positions` of the present records.
    """
    place = {id(record): number for number, record in enumerate(split.annotations.records)}
    columns = [place[id(split.present[position])] for position in positions]

    num_videos = len(split.annotations.records)
    if len(columns) < num_videos:
        logger.warning(
            "%d of %d videos have no scores: in the submission they come last for every text",
            num_videos - len(columns),
            num_videos,
        )

    t2v, v2t = submission.with_all_videos(t2v, v2t, columns, num_videos)
    return {
        "submission.zip": partial(submission.write_zip, t2v),
        "t2v_scores.npy": partial(submission.write_array, t2v),
        "v2t_scores.npy": partial(submission.write_array, v2t),
    }
