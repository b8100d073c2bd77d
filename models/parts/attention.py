"""Multi-head self-attention that also returns, when asked, keys or the attention that each token receives.

Shapes: B batch, N tokens that attend to each other, G groups side by side that do not, D width, H heads, K = D / H head
width. Attention over frames has N frames and G patches, attention within a frame N patches and one group: neither
needs to move data.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.parts.packed_rows import PackedRows, attend_rows
from models.parts.sharpness import attend_with_sharpness, sharpness
from models.parts.short_attention import attend_in_short, suits_short
from models.parts.tiled_attention import attend_in_tiles, suits_tiles

Needs = Literal["nothing", "key", "probabilities", "sharpness", "key and sharpness"]
"""What a reducer asks of attention: keys averaged over heads, also attention received, or sharpness alone, or both."""
MOST_TOKENS_BY_HEAD = 256
"""On a CPU, scores of more tokens than this for all sequences of one head would be larger than a cache."""


class Attended(NamedTuple):
    """Context (B, N, G, D) before `proj`; where asked for, mean keys, attention received, sharpness, in float32.

    These have the tokens last, as they are matched: (B, G, N, K), (B, G, N) and (B, G, N).
    """

    context: Tensor
    key: Tensor | None
    importance: Tensor | None
    sharpness: Tensor | None = None

    def of_tokens(self, num_class_tokens: int) -> "Attended":
        """Drop the class tokens that start a single group: what reducers read about the others, (B, N, ...)."""
        key, importance = (
            None if part is None else part[:, 0, num_class_tokens:] for part in (self.key, self.importance)
        )
        sharp = None if self.sharpness is None else self.sharpness[:, 0]  # which has no class tokens
        return self._replace(key=key, importance=importance, sharpness=sharp)


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values, as in ViT (names `qkv` and `proj`).

    `forward` ends before `proj`, so that a block may multiply it with a linear layer that follows.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.qkv: nn.Module = nn.Linear(width, 3 * width)
        self.proj: nn.Module = nn.Linear(width, width)

    def forward(
        self,
        tokens_BNGD: Tensor,
        key_bias_BGN: Tensor | None = None,
        needs: Needs = "nothing",
        num_class_tokens: int = 0,
    ) -> Attended:
        """Attend along N within each group; `key_bias_BGN` is added to the scores of each key (log size).

        Sharpness is of the tokens after the first `num_class_tokens`, and of their attention to each other.
        """
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in self._project(tokens_BNGD))
        if needs == "sharpness":
            return _attend_sharply(query, key, value, key_bias_BGN, num_class_tokens)

        importance = None
        if needs == "probabilities":
            context, importance = _attend_with_probabilities(query, key, value, key_bias_BGN)
        else:
            context = _attend_fast(query, key, value, key_bias_BGN)

        mean_key = None if needs == "nothing" else key.detach().mean(dim=3).transpose(1, 2)
        sharp = None
        if needs == "key and sharpness":
            sharp = _sharpness_in_groups(query[:, num_class_tokens:], key[:, num_class_tokens:])
        return Attended(context, mean_key, importance, sharp)

    def projected(self, tokens_BNGD: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values (B, N, G, D), for `attend`."""
        return self._project(tokens_BNGD)

    def attend(self, projected: Sequence[Tensor], key_bias_BGN: Tensor | None) -> Tensor:
        """Context (B, N, G, D) before `proj`, of queries, keys and values (B, N, G, D)."""
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in projected)
        return _attend_fast(query, key, value, key_bias_BGN)

    def over_rows(self, tokens_RD: Tensor, rows: PackedRows, key_bias_R: Tensor | None = None) -> Tensor:
        """Context (R, D) before `proj` of packed rows, each of which attends to itself."""
        projected = self._project(tokens_RD[None, :, None])
        query, key, value = (part[0, :, 0].unflatten(-1, (self.heads, -1)) for part in projected)
        return attend_rows(query, key, value, rows, key_bias_R, _attend_fast).flatten(1)

    def _project(self, tokens_BNGD: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values (B, N, G, D), each."""
        if isinstance(self.qkv, nn.ModuleList):  # packed for inference
            return tuple(part(tokens_BNGD) for part in self.qkv)
        assert isinstance(self.qkv, nn.Linear)
        if tokens_BNGD.shape[2] == 1:
            return self.qkv(tokens_BNGD).chunk(3, dim=-1)
        # A view of groups and heads as one dimension needs them adjacent in memory, which a fused product prevents.
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        return tuple(F.linear(tokens_BNGD, weight, bias) for weight, bias in zip(weights, biases, strict=True))


def _attend_fast(query: Tensor, key: Tensor, value: Tensor, key_bias_BGN: Tensor | None) -> Tensor:
    """Context (B, N, G, D) of queries, keys, values (B, N, G, H, K), in the fastest way that there is for them."""
    if suits_short(query, query.shape[1]):
        context = torch.empty_like(query, memory_format=torch.contiguous_format)
        attend_in_short(query, (key,), (value,), key_bias_BGN, context)
        return context.flatten(3)
    if _is_faster_by_head(query, key_bias_BGN):
        return _attend_by_head(query, key, value)
    if query.shape[1] > MOST_TOKENS_BY_HEAD and suits_tiles(query):
        return attend_in_tiles(query, key, value, key_bias_BGN).flatten(3)
    return _attend(query, key, value, key_bias_BGN)


def _attend(query: Tensor, key: Tensor, value: Tensor, key_bias_BGN: Tensor | None) -> Tensor:
    """Context (B, N, G, D) of queries, keys, values (B, N, G, H, K); kernels see groups and heads as one dimension."""
    queries, keys, values = (part.flatten(2, 3).transpose(1, 2) for part in (query, key, value))  # each B (G H) N K

    bias = None
    if key_bias_BGN is not None:
        bias = key_bias_BGN.detach().to(query.dtype).repeat_interleave(query.shape[3], dim=1)[:, :, None, :]

    if bias is None or not query.is_cuda:
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    else:
        # cuDNN's kernel, first choice on Hopper, returns NaN gradients for some lengths when there is a bias.
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    return attended.transpose(1, 2).reshape(*query.shape[:3], -1)


def _sharpness_in_groups(query_BNGHK: Tensor, key_BNGHK: Tensor) -> Tensor:
    """Sharpness (B, G, N) of what the tokens of a group pay to each other."""
    queries, keys = (part.detach().transpose(1, 2).flatten(0, 1) for part in (query_BNGHK, key_BNGHK))
    return sharpness(queries, keys).unflatten(0, (-1, query_BNGHK.shape[2]))


def _attend_sharply(
    query: Tensor, key: Tensor, value: Tensor, key_bias_BGN: Tensor | None, num_class_tokens: int
) -> Attended:
    """Context and sharpness of one group.

    One pass computes both if there is no gradient and no class token; otherwise a fused kernel computes the context.
    """
    assert query.shape[2] == 1, "sharpness is of tokens in one group"
    queries, keys, values = (part.squeeze(2) for part in (query, key, value))

    if torch.is_grad_enabled() or num_class_tokens:
        context = _attend(query, key, value, key_bias_BGN)
        sharp = sharpness(queries[:, num_class_tokens:].detach(), keys[:, num_class_tokens:].detach())
    else:
        size = None if key_bias_BGN is None else key_bias_BGN.squeeze(1).exp()
        attended, sharp = attend_with_sharpness(queries, keys, values, size)
        context = attended.flatten(2).unsqueeze(2)
    return Attended(context, None, None, sharp.unsqueeze(1))


def _is_faster_by_head(query: Tensor, key_bias_BGN: Tensor | None) -> bool:
    """In float32 on a CPU, without gradient: 0.7 to 0.9 of the time of torch's fused kernel on two threads."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and key_bias_BGN is None
        and query.shape[1] <= MOST_TOKENS_BY_HEAD
    )


def _attend_by_head(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Like `_attend`, but one head of many sequences at a time, so that scores stay in the cache."""
    context = torch.empty_like(query, memory_format=torch.contiguous_format)

    # With one group, all sequences of the batch go together; otherwise the groups of one row do.
    if query.shape[2] == 1:
        parts = [tuple(part[:, :, 0] for part in (query, key, value, context))]
    else:
        rows = range(len(query))
        parts = [tuple(part[row].transpose(0, 1) for part in (query, key, value, context)) for row in rows]

    scale = query.shape[-1] ** -0.5
    for queries, keys, values, contexts in parts:  # sequences, N, H, K
        scores = query.new_empty(len(queries), queries.shape[1], keys.shape[1])
        for head in range(query.shape[3]):
            transposed = keys[:, :, head].transpose(1, 2)
            torch.baddbmm(scores, queries[:, :, head], transposed, beta=0, alpha=scale, out=scores)
            torch.softmax(scores, dim=-1, out=scores)
            contexts[:, :, head] = torch.bmm(scores, values[:, :, head])
    return context.flatten(3)


def _attend_with_probabilities(
    query: Tensor, key: Tensor, value: Tensor, key_bias_BGN: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention with explicit probabilities, and how much of it each token receives from the others (B, G, N).

    Equation 1 of TESTA: the mean over heads, summed over queries, without what a token gives itself.
    """
    # Contiguous, so that equal tokens tie: how products round depends on the memory layout.
    query, key, value = (part.permute(0, 2, 3, 1, 4).contiguous() for part in (query, key, value))  # each B G H N K
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if key_bias_BGN is not None:
        scores = scores + key_bias_BGN.detach().to(query.dtype)[:, :, None, None, :]
    probabilities = scores.softmax(dim=-1, dtype=torch.float32)

    # Sum over queries what each key receives, less the diagonal: what a token gives itself.
    given = probabilities.detach().mean(dim=2)
    importance = given.sum(dim=-2) - given.diagonal(dim1=-2, dim2=-1)

    context = probabilities.to(value.dtype) @ value
    return context.permute(0, 3, 1, 2, 4).flatten(3), importance
