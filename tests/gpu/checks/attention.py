"""Attention with a bias on its keys at every length, since what is left after merging is of any length.

Kernels are known to return NaN gradients for some lengths, or to refuse a bias that is not aligned.
"""

import torch
from torch import Tensor

from engine.precision import Precision, autocast
from models.parts.attention import Attention
from tests.gpu.checks.formats import APART, require
from tests.gpu.checks.outcome import Finding, Reading, distance, not_finite, worst
from tests.gpu.checks.sizes import Size

BATCH = 2
GROUPS = (1, 3)
"""Within a frame there is one group of tokens; over time as many as there are patches."""


def with_bias(device: torch.device, size: Size, precision: Precision) -> Finding:
    """Every length up to the longest: output and gradients near those with the probabilities written out in float32."""
    require(device, precision)
    torch.manual_seed(0)
    attention = Attention(size.model.width, size.model.heads).to(device)
    generator = torch.Generator().manual_seed(1)
    outputs, gradients, broken = [0.0], [0.0], []
    for length in range(1, size.longest + 1):
        for groups in GROUPS:
            shape = (BATCH, length, groups, size.model.width)
            tokens = torch.randn(shape, generator=generator).to(device)
            bias = torch.randint(1, 40, (BATCH, groups, length), generator=generator).log().to(device)
            found = _run(attention, tokens, bias, precision, written_out=False)
            expected = _run(attention, tokens, bias, "fp32", written_out=True)
            if not_finite(found):
                broken.append(f"{length} x {groups}")
                continue
            outputs.append(distance(found[0], expected[0]))
            # Of a single key every output is its value: what reaches the queries and keys is zero.
            pairs = zip(found[1:], expected[1:], strict=True)
            gradients += [distance(own, other) for own, other in pairs if other.any()]
    return Finding(
        [
            Reading("lengths not finite", len(broken), 0),
            Reading("outputs", worst(outputs), APART[precision]),
            Reading("gradients", worst(gradients), 2 * APART[precision]),
        ],
        f"not finite at {', '.join(broken[:8])} (tokens x groups)" if broken else "",
    )


def _run(
    attention: Attention, tokens: Tensor, bias_BGN: Tensor, precision: Precision, written_out: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Context, and the gradients of its squares' sum for the tokens and for the matrix that makes keys of them."""
    tokens = tokens.clone().requires_grad_()
    attention.zero_grad()
    with autocast(tokens.device, precision):
        context = attention(tokens, bias_BGN, "probabilities" if written_out else "nothing").context
    context.float().square().sum().backward()
    assert isinstance(attention.qkv, torch.nn.Linear) and attention.qkv.weight.grad is not None
    assert tokens.grad is not None
    return context.detach(), tokens.grad, attention.qkv.weight.grad.clone()
