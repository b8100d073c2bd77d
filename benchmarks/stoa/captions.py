"""Captions written greedily: with a cache of keys and values against all tokens again for every token."""

from collections.abc import Callable

from benchmarks.measure import Case, Variant
from benchmarks.settings import Settings
from benchmarks.stoa.work import captions_of, make_memory, make_model

CAPTIONS = 16


def cases(settings: Settings) -> list[Case]:
    """Both ways; nothing of the configuration is read."""
    ours, naive = (Variant(f"{__name__}:run_captions", {"naive": naive}) for naive in (False, True))
    return [Case(f"{CAPTIONS} captions of 31 tokens, clips encoded beforehand", ours, naive)]


def run_captions(settings: Settings, naive: bool) -> Callable[[], None]:
    """Greedy captions that never end."""
    model = make_model().eval()
    memory = make_memory(model.sizes, CAPTIONS)

    def work() -> None:
        captions_of(model, memory, naive)

    return work
