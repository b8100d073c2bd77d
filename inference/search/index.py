"""The index that videos are searched in: a feature folder, plus the checkpoint that encodes queries.

search.json    checkpoint, config file and settings that encode a query

`inference/features/folder.py` describes all other files.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from configs.load import differences
from engine.checkpoint_folder import find_folder, read_json, write_json
from engine.distributed import done_by_main
from engine.hub import SCHEME, Checkpoint
from inference.api import TrainedModel
from inference.features.extract import ExtractionRequest, extraction_of, run
from inference.features.folder import EXTRACTION, FEATURES, INDEX, read_clips, read_failed
from inference.features.sources import Clip
from inference.trained import CAN_DO, abilities_of, settings_to_use
from tasks.metrics.retrieval import shortlist

SEARCH = "search.json"
ARRAYS = ("embeddings",)
ROWS_AT_ONCE = 8192
"""Embeddings converted to float64 at a time: 17 MB at width 256."""


class VideoIndex:
    """Videos and their embeddings, which stay on disk until a search reads them.

    Attributes:
        folder: the folder of the index.
        clips: the videos, or parts of videos, each with its file's size and modification time when it was encoded.
        embeddings: (V, E) float32, of unit length, one for each of `clips`; memory-mapped.
        has_windows: whether windows of each video are indexed besides the whole.
        checkpoint, config, overrides: arguments for `inference.api.load_model`, to encode a query.
    """

    def __init__(
        self,
        folder: Path,
        clips: list[Clip],
        embeddings: NDArray,
        search: dict[str, Any],
        has_windows: bool = False,
    ) -> None:
        assert len(clips) == len(embeddings)
        self.folder, self.clips, self.embeddings = folder, clips, embeddings
        self.has_windows = has_windows
        self.checkpoint: str = search["checkpoint"]
        self.config: str | None = search["config"]
        self.overrides: list[str] = search["overrides"]

    @cached_property
    def _video_of_row(self) -> NDArray:
        """The number of each row's video, (V,)."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(clip.video, len(numbers)) for clip in self.clips])

    @cached_property
    def failed(self) -> dict[str, str]:
        """The reason for each video, by path, that is missing from the index because it could not be read."""
        indexed = {clip.video for clip in self.clips}
        return {row["video"]: row["reason"] for row in read_failed(self.folder) if row["video"] not in indexed}

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the index in a folder; ValueError if there is none, or if it is damaged."""
        features_folder = find_folder(folder / FEATURES)
        if features_folder is None or not (folder / SEARCH).is_file():
            raise ValueError(f"{folder}: holds no index; make one with python -m scripts.search index VIDEOS")

        try:
            embeddings = np.load(features_folder / "embeddings.npy", mmap_mode="r")
            clips = read_clips(features_folder / INDEX)
            if len(clips) != len(embeddings):
                raise ValueError(f"{len(clips)} videos and {len(embeddings)} embeddings")
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise ValueError(
                f"{features_folder}: is damaged ({error}); remove it and give the same index command again"
            ) from error

        has_windows = "windows" in read_json(folder / EXTRACTION)
        return cls(folder, clips, embeddings, read_json(folder / SEARCH), has_windows)

    @staticmethod
    def update(request: ExtractionRequest) -> dict[str, Any]:
        """Create the index `request.out`, or update it to the current videos, with `features.extract.run`.

        New and changed files are encoded; removed files leave the index. Returns the counts. A collective of all
        processes.

        Raises:
            ValueError: the checkpoint has no embeddings, or the index belongs to another checkpoint, setting or source.
        """
        overrides = list(request.overrides)
        checkpoint = Checkpoint.find(request.checkpoint)
        settings = settings_to_use(checkpoint, overrides, request.config)
        if "encode_video" not in abilities_of(settings):
            raise ValueError(
                f"{request.checkpoint}: a checkpoint of {settings.task} has no embeddings to search by; give "
                f"{CAN_DO['encode_video']}"
            )

        noted = request.out / SEARCH
        made_with = read_json(noted)["overrides"] if noted.is_file() else overrides
        if sorted(made_with) != sorted(overrides):
            raise ValueError(
                f"{request.out}: was made with {' '.join(made_with) or 'no settings'} over the checkpoint's own, not "
                f"with {' '.join(overrides) or 'none'}; give the same, or name another folder"
            )

        counts = run(request, checkpoint)
        is_local = not request.checkpoint.startswith(SCHEME)
        search = {
            "checkpoint": str(Path(request.checkpoint).resolve()) if is_local else request.checkpoint,
            "config": None if request.config is None else str(request.config.resolve()),
            "overrides": overrides,
        }

        done_by_main(lambda: write_json(noted, search))
        return counts

    def check_model(self, model: TrainedModel) -> None:
        """Raise a ValueError, naming what differs, unless the model's weights and settings encoded the videos.

        Precision may differ: an index may be made on a GPU and searched on a CPU. The videos may have moved.
        """
        noted = read_json(self.folder / EXTRACTION)
        given = ExtractionRequest(checkpoint=model.source, source=Path(noted["source"]), out=self.folder)
        requested = extraction_of(model, given, tuple(noted["arrays"]))
        may_differ = {
            name: noted[name] for name in ("source", "videos", "checkpoint", "precision", "windows") if name in noted
        }
        found = differences(noted, requested | may_differ)
        if found:
            raise ValueError(
                f"{self.folder}: its videos were encoded by other weights or settings than {model.source} "
                f"({'; '.join(found)}); say with --checkpoint where those are, or make another index"
            )

    def search(self, text_embedding: NDArray, most: int) -> tuple[NDArray, NDArray]:
        """The rows (k,) of the `most` nearest videos, nearest first, and their cosines (k,) float32 with a text (E,).

        Where videos are indexed by windows, each video is there once, with the nearest of its windows and its whole.
        The search is exact: it compares all videos, with float64 sums as in `tasks.metrics.retrieval.Direction`.
        """
        query = text_embedding.astype(np.float64)
        tiles = range(0, len(self.embeddings), ROWS_AT_ONCE)
        cosine = np.concatenate(
            [self.embeddings[first : first + ROWS_AT_ONCE].astype(np.float64) @ query for first in tiles]
        ).astype(np.float32)
        if self.has_windows:
            rows = self._nearest_windows(cosine)
            rows = rows[shortlist(cosine[None, rows], most)[0]]
        else:
            rows = shortlist(cosine[None], most)[0]
        best_first = rows[np.argsort(-cosine[rows], kind="stable")]
        return best_first, cosine[best_first]

    def _nearest_windows(self, cosine: NDArray) -> NDArray:
        """The row of the nearest window, or of the whole, of each video; ties go to the smaller row."""
        by_nearness = np.argsort(-cosine, kind="stable")
        _, first_of_video = np.unique(self._video_of_row[by_nearness], return_index=True)
        return by_nearness[first_of_video]
