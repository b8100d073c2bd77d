"""Reranking: each pair fused once for both directions, without padding, against each query with all its candidates."""

from collections.abc import Callable

from benchmarks.measure import Case, Variant
from benchmarks.settings import Settings
from benchmarks.stoa.naive import match_candidates as match_candidates_naively
from benchmarks.stoa.work import make_candidates, make_memory, make_model
from models.stoa.reranking import match_candidates

QUERIES, CANDIDATES = 24, 8
"""A quarter of 96 queries with 32 candidates each, which is the reference's number, in each direction."""


def cases(settings: Settings) -> list[Case]:
    """Both ways; nothing of the configuration is read."""
    ours, naive = (Variant(f"{__name__}:run_rerank", {"naive": naive}) for naive in (False, True))
    return [Case(f"reranking {CANDIDATES} of {QUERIES}, both directions", ours, naive)]


def run_rerank(settings: Settings, naive: bool) -> Callable[[], None]:
    """The probabilities of all candidates, of features encoded beforehand."""
    model = make_model().eval()
    memory = make_memory(model.sizes, QUERIES)
    texts, t2v, v2t = make_candidates(model, QUERIES, CANDIDATES)
    way = match_candidates_naively if naive else match_candidates

    def work() -> None:
        way(model, memory, texts, t2v, v2t)

    return work
