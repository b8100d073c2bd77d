"""A pre-training step: matching, masked words, writing and alignment, forward and backward."""

from collections.abc import Callable

import torch

from benchmarks.measure import Case, Variant
from benchmarks.settings import Settings
from benchmarks.stoa.work import make_batch, make_model, step_losses

BATCH = 2


def cases(settings: Settings) -> list[Case]:
    """Both ways; nothing of the configuration is read."""
    ours, naive = (Variant(f"{__name__}:run_step", {"naive": naive}) for naive in (False, True))
    return [Case(f"pre-training step, {BATCH} clips of 12 frames", ours, naive)]


def run_step(settings: Settings, naive: bool) -> Callable[[], None]:
    """All losses of a pre-training batch, and their gradients."""
    model = make_model()
    batch = make_batch(model.sizes, BATCH)

    def work() -> None:
        model.zero_grad()
        torch.stack(step_losses(model, batch, naive)).sum().backward()

    return work
