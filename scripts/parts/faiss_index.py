"""The command that gives an index approximate search, or brings it up to date."""

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import NDArray

from configs.sizes import format_bytes
from engine.folder_lock import only_writer
from engine.logging import start_logging
from inference.search.approximate import CODES, FAISS, META, FaissSettings, faiss_library
from inference.search.build_faiss import suggestion
from inference.search.index import VideoIndex
from inference.search.scale import EVERYDAY_CAPTIONS
from inference.search.searcher import Searcher
from scripts.parts.arguments import at_least

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FaissRequest:
    """What `build-faiss` is to do.

    Attributes:
        checkpoint: where the index's checkpoint is now, if it was moved.
        settings: how to build; None for those of the last build, or the defaults.
        rebuild: whether to train again what is there.
    """

    index: Path
    checkpoint: str | None
    settings: FaissSettings | None
    rebuild: bool


def add_build_faiss(parser: argparse.ArgumentParser) -> None:
    """What `build-faiss` is given."""
    parser.add_argument("index", type=Path, metavar="INDEX", help="what `index` wrote")
    parser.add_argument("--checkpoint", help="where the index's checkpoint went, if it was moved")
    parser.add_argument("--codes", choices=CODES, help="how a vector is stored: 4 E, E or E / 4 bytes (sq8)")
    parser.add_argument("--lists", type=at_least(1), help="inverted lists; by default about the root of the vectors")
    parser.add_argument("--rebuild", action="store_true", help="train the lists again")


def faiss_request(
    index: Path, checkpoint: str | None, codes: str | None, lists: int | None, rebuild: bool
) -> FaissRequest:
    """The request that the options make."""
    settings = None if codes is None and lists is None else FaissSettings(codes or FaissSettings.codes, lists)
    return FaissRequest(index, checkpoint, settings, rebuild)


def build_faiss(request: FaissRequest) -> int:
    """Build or update, and print what came of it."""
    start_logging()
    faiss_library()
    has_index = (request.index / FAISS / META).is_file() and not request.rebuild
    texts = None if has_index else _everyday_texts(request)
    print(_built(request, texts))
    return 0


def refresh_faiss(index: Path) -> str | None:
    """Bring the FAISS index of an index up to date; lines that say what came of it, None if the index has none."""
    if not (index / FAISS / META).is_file():
        return None
    try:
        faiss_library()
    except ValueError as error:
        return f"note: its FAISS index is out of date: {error}"
    return _built(FaissRequest(index, None, None, rebuild=False), None)


def _built(request: FaissRequest, texts: NDArray | None) -> str:
    begun = time.monotonic()
    index = VideoIndex.open(request.index, "exact")
    with only_writer(request.index):
        meta = index.build_faiss(request.settings, texts, request.rebuild)

    folder = request.index / FAISS
    size = sum(path.stat().st_size for path in folder.iterdir())
    lines = [
        f"{folder}: {meta['ids'] - meta['removed']} vectors in {meta['lists']} lists, {meta['probes']} of them probed; "
        f"{meta['removed']} removed; {format_bytes(size)}; {time.monotonic() - begun:.1f} s"
    ]
    for name, recall in meta["recall"].items():
        shares = ", ".join(f"{at} {share:.3f}" for at, share in recall.items())
        lines.append(f"of what exact search finds, asked with {name}: {shares}")
    advice = suggestion(meta)
    return "\n".join(lines + ([] if advice is None else [f"note: {advice}"]))


def _everyday_texts(request: FaissRequest) -> NDArray | None:
    """Embeddings of everyday captions, which lie where queries do; None if the checkpoint is not there."""
    try:
        searcher = Searcher.open(request.index, request.checkpoint, "exact")
    except ValueError as error:
        if request.checkpoint is not None:
            raise
        logger.warning("%s; recall is measured without texts", error)
        return None
    return searcher.model.encode_text(EVERYDAY_CAPTIONS).numpy()
