"""Features of a clip alone: what extraction promises of batches that have one shape."""

import torch

from engine.precision import DTYPES, Precision, autocast
from tests.gpu.checks.formats import require
from tests.gpu.checks.models import build_model, pixels
from tests.gpu.checks.outcome import Finding, Reading
from tests.gpu.checks.sizes import Size

BATCH = 8


def neighbours(device: torch.device, size: Size, precision: Precision) -> Finding:
    """Among other neighbours, and at another place in the batch, a clip has the same bits."""
    require(device, precision)
    model = build_model(size, device).eval()
    model.fold_for_inference(DTYPES[precision])
    clips = pixels(size, device, batch=BATCH)

    def encode(places: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), autocast(device, precision):
            return model.encode_video(clips[places.to(device)]).embedding

    order = torch.arange(BATCH)
    expected = encode(order)
    among_others = [place for place in range(BATCH) if not _equal(encode(_only(place)), expected, place, place)]
    reversed_order = encode(order.flip(0))
    elsewhere = [place for place in range(BATCH) if not _equal(reversed_order, expected, BATCH - 1 - place, place)]
    return Finding(
        [
            Reading("clips that neighbours change", len(among_others), 0),
            Reading("clips that their place changes", len(elsewhere), 0),
        ]
    )


def _only(place: int) -> torch.Tensor:
    """A batch in which all other places hold one and the same clip."""
    places = torch.full((BATCH,), (place + 1) % BATCH)
    places[place] = place
    return places


def _equal(found: torch.Tensor, expected: torch.Tensor, row: int, expected_row: int) -> bool:
    return torch.equal(found[row], expected[expected_row])
