"""The prefix loss of pre-training, forward and backward: one pass against a pass a token."""

from collections.abc import Callable

from benchmarks.measure import Case, Variant
from benchmarks.settings import Settings
from benchmarks.stoa.work import make_memory, make_model, make_texts, prefix_loss_of

BATCH = 2


def cases(settings: Settings) -> list[Case]:
    """Both ways; nothing of the configuration is read."""
    ours, naive = (Variant(f"{__name__}:run_prefix_loss", {"naive": naive}) for naive in (False, True))
    return [Case(f"prefix loss, forward and backward, {BATCH} texts", ours, naive)]


def run_prefix_loss(settings: Settings, naive: bool) -> Callable[[], None]:
    """The loss of writing the second half of texts, and its gradient."""
    model = make_model()
    memory, (ids, mask) = make_memory(model.sizes, BATCH), make_texts(model.sizes, BATCH)

    def work() -> None:
        model.zero_grad()
        prefix_loss_of(model, memory, ids, mask, naive).backward()

    return work
