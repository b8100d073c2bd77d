"""Ragged rows: packed ones, with torch's kernel for sequences of several lengths, as padded ones with a mask."""

import torch
from torch import Tensor

from engine.precision import Precision, autocast
from models.parts.attention import Attention
from models.parts.packed_rows import PackedRows
from tests.gpu.checks.formats import APART, require
from tests.gpu.checks.outcome import Finding, Reading, distance, not_finite
from tests.gpu.checks.sizes import Size

BATCH = 5


def packed(device: torch.device, size: Size, precision: Precision) -> Finding:
    """Output and gradients of packed rows near those of padded rows in float32."""
    require(device, precision)
    torch.manual_seed(0)
    attention = Attention(size.model.width, size.model.heads).to(device)
    counts = tuple(max(1, size.longest * (row + 1) // BATCH) for row in range(BATCH))
    tokens = torch.randn(BATCH, size.longest, size.model.width, generator=torch.Generator().manual_seed(1)).to(device)
    mask = torch.arange(size.longest, device=device) < torch.tensor(counts, device=device)[:, None]
    rows = PackedRows.of(counts, size.longest, device)

    def run(precision: Precision, is_packed: bool) -> list[Tensor]:
        shown = tokens.clone().requires_grad_()
        attention.zero_grad()
        with autocast(device, precision):
            if is_packed:
                context = rows.pad(attention.over_rows(rows.pack(shown), rows).float())
            else:
                context = attention(shown.unsqueeze(2), mask.float().log().unsqueeze(1)).context.squeeze(2)
                context = context * mask.unsqueeze(-1)
        context.float().square().sum().backward()
        assert isinstance(attention.qkv, torch.nn.Linear)
        assert shown.grad is not None and attention.qkv.weight.grad is not None
        return [context.detach(), shown.grad, attention.qkv.weight.grad.clone()]

    found, expected = run(precision, is_packed=True), run("fp32", is_packed=False)
    apart = [distance(own, other) for own, other in zip(found, expected, strict=True)]
    return Finding(
        [
            Reading("not finite", float(not_finite(found)), 0),
            Reading("outputs", apart[0], APART[precision]),
            Reading("gradients", max(apart[1:]), 2 * APART[precision]),
        ]
    )
