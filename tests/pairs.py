"""Data sets of records, with the settings of a clip's squares among the others."""

from collections.abc import Sequence
from typing import Any

from datasets.framing import Framing
from datasets.pairs import PairTable
from datasets.records import QuestionRecord, VideoTextRecord
from datasets.video_text import VideoTextDataset


def dataset_of(records: Sequence[VideoTextRecord] | Sequence[QuestionRecord] | PairTable, **settings: Any) -> Any:
    """A `VideoTextDataset`; `image_size`, `augment`, `resize`, `fit` and `interpolation` are those of its `Framing`."""
    table = records if isinstance(records, PairTable) else PairTable.of(records)
    framing = {name: settings.pop(name) for name in ("augment", "resize", "fit", "interpolation") if name in settings}
    return VideoTextDataset(table, framing=Framing(settings.pop("image_size"), **framing), **settings)
