"""The index that videos are searched in: a feature folder, plus the checkpoint that encodes queries.

search.json    checkpoint, config file and settings that encode a query
table/         what a search reads of each row, see `inference/search/table.py`; made again if it is missing
faiss/         approximate search, if it was asked for, see `inference/search/approximate.py`

`inference/features/folder.py` describes all other files.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from configs.load import differences
from datasets.remote.addresses import folder_of
from engine.checkpoint_folder import find_folder, read_json, write_json
from engine.distributed import done_by_main
from engine.folder_lock import only_writer
from engine.hub import SCHEME, Checkpoint
from inference.api import TrainedModel
from inference.features.extract import ExtractionRequest, extraction_of, run
from inference.features.folder import EXTRACTION, FEATURES, INDEX, read_failed
from inference.features.sources import tags_of
from inference.search import build_faiss, exact
from inference.search.approximate import FAISS, META as FAISS_META, TEXTS, FaissIndex, FaissSettings
from inference.search.exact import Vectors
from inference.search.table import EMBEDDINGS, VideoTable, made_of, open_table, update_table
from inference.search.where import Where
from inference.trained import CAN_DO, abilities_of, settings_to_use

SEARCH = "search.json"
Engine = Literal["exact", "faiss"]
FEW = 100_000
"""Videos that pass a filter: up to so many are compared exactly, whatever the engine."""
VIDEOS_ASKED = 128
"""Stored vectors, evenly spaced, that FAISS's recall is measured with."""


class VideoIndex:
    """Videos and their embeddings, which stay on disk until a search reads them.

    Attributes:
        folder: the folder of the index.
        clips: the videos, or parts of videos, each with its file's size and modification time when it was encoded.
        vectors: the embeddings (V, E) float32, one for each of `clips`, memory-mapped, and what a scan reads of them.
        has_windows: whether windows of each video are indexed besides the whole.
        has_durations: whether the index knows how long its files are, and their tags; older ones do not.
        checkpoint, config, overrides: arguments for `inference.api.load_model`, to encode a query.
        faiss: what searches approximately; None to compare all vectors.
    """

    def __init__(
        self,
        folder: Path,
        clips: VideoTable,
        vectors: Vectors,
        search: dict[str, Any],
        *,
        has_windows: bool = False,
        has_durations: bool = True,
        faiss: FaissIndex | None = None,
    ) -> None:
        assert len(clips) == len(vectors)
        self.folder, self.clips, self.vectors = folder, clips, vectors
        self.has_windows, self.has_durations, self.faiss = has_windows, has_durations, faiss
        self.checkpoint: str = search["checkpoint"]
        self.config: str | None = search["config"]
        self.overrides: list[str] = search["overrides"]

    @property
    def embeddings(self) -> NDArray:
        """The stored embeddings (V, E), float32."""
        return self.vectors.stored

    @cached_property
    def failed(self) -> dict[str, str]:
        """The reason for each video, by path, that is missing from the index because it could not be read."""
        rows = read_failed(self.folder)
        indexed = {clip.video for clip in self.clips} if rows else set()
        return {row["video"]: row["reason"] for row in rows if row["video"] not in indexed}

    @classmethod
    def open(cls, folder: Path, engine: Engine | None = None) -> Self:
        """Open the index in a folder; ValueError if there is none, or if it is damaged.

        Args:
            engine: `exact` compares all vectors; `faiss` is approximate; by default FAISS where the index has it.
        """
        features = _features_of(folder)
        try:
            embeddings = np.load(features / EMBEDDINGS, mmap_mode="r")
            opened = open_table(folder, features, embeddings)
            table, vectors = opened or (VideoTable.from_lines(features / INDEX, {}, None), Vectors(embeddings))
            if len(table) != len(embeddings):
                raise ValueError(f"{len(table)} videos and {len(embeddings)} embeddings")
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise ValueError(
                f"{features}: is damaged ({error}); remove it and give the same index command again"
            ) from error

        has_faiss = (folder / FAISS / FAISS_META).is_file()
        if engine == "faiss" and not has_faiss:
            raise ValueError(f"{folder}: has no FAISS index; give python -m scripts.search build-faiss {folder}")
        use_faiss = has_faiss and engine != "exact"

        return cls(
            folder,
            table,
            vectors,
            read_json(folder / SEARCH),
            has_windows="windows" in read_json(folder / EXTRACTION),
            has_durations=opened is not None,
            faiss=FaissIndex.open(folder / FAISS, _embeddings_made_of(features)) if use_faiss else None,
        )

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
        done_by_main(lambda: _update_table(request))
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
        given = ExtractionRequest(checkpoint=model.source, source=folder_of(noted["source"]), out=self.folder)
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

    def rows_where(self, where: Where) -> NDArray:
        """The rows (R,) that pass a filter. ValueError if an older index does not know what it asks about."""
        keys = [condition.key for condition in where.conditions if condition.key in ("duration", "tag")]
        if keys and not self.has_durations:
            raise ValueError(f"{self.folder}: knows no {keys[0]} of its videos; give its index command again")
        return where.rows(self.clips)

    def search(self, text_embedding: NDArray, most: int, where: Where | None = None) -> tuple[NDArray, NDArray]:
        """The rows (k,) of the `most` nearest videos, nearest first, and their cosines (k,) float32 with a text (E,).

        Where videos are indexed by windows, each video is there once, with the nearest of its windows and its whole.
        Without FAISS the search is exact. With a filter `where`, few videos are compared exactly in any case.
        """
        query, group = text_embedding[None], self.clips.video_of_row if self.has_windows else None
        allowed = None if where is None else self.rows_where(where)
        if self.faiss is None or (allowed is not None and len(allowed) <= FEW):
            (found,) = exact.search(self.vectors, query, most, allowed, group)
            return found

        selected = None
        if allowed is not None:
            selected = np.zeros(len(self.clips), bool)
            selected[allowed] = True
        (found,) = self.faiss.search(self.vectors, query, most, selected, group)
        return found

    def build_faiss(
        self, settings: FaissSettings | None, texts: NDArray | None, rebuild: bool = False
    ) -> dict[str, Any]:
        """Make the FAISS index, or bring it up to date unless it is to be rebuilt; returns its faiss.json.

        Without `settings` they are those of the last build, or the defaults. Recall is measured with stored vectors,
        and with embeddings of texts (Q, E) if some are given or were before.
        """
        made_from = _embeddings_made_of(_features_of(self.folder))
        step = -(-len(self.vectors) // VIDEOS_ASKED)
        queries = {"videos": np.asarray(self.embeddings[::step])}

        folder = self.folder / FAISS
        folder.mkdir(exist_ok=True)
        if texts is not None:
            np.save(folder / TEXTS, texts)
        if (folder / TEXTS).is_file():
            queries["texts"] = np.load(folder / TEXTS)

        if (folder / FAISS_META).is_file() and not rebuild:
            return build_faiss.update(folder, self.vectors, made_from, settings, queries)
        return build_faiss.build(folder, self.vectors, made_from, settings or FaissSettings(), queries)


def _update_table(request: ExtractionRequest) -> None:
    with only_writer(request.out):
        update_table(request.out, tags_of(request.source, request.videos))


def _features_of(folder: Path) -> Path:
    """The feature folder of an index; ValueError if there is none."""
    features = find_folder(folder / FEATURES)
    if features is None or not (folder / SEARCH).is_file():
        raise ValueError(f"{folder}: holds no index; make one with python -m scripts.search index VIDEOS")
    return features


def _embeddings_made_of(features: Path) -> list[Any]:
    """Checksum and size of the embeddings; ValueError if the folder lists no checksums."""
    made_from = made_of(features)
    if made_from is None:
        raise ValueError(f"{features}: lists no checksums; give the index command again")
    return made_from[EMBEDDINGS]
