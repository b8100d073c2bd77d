"""Ragged rows without their padding: the tokens of all videos of a batch, one video after the other, in one row.

Linear layers and norms then work on a video's own tokens alone. Attention is within each video: on a GPU in half
precision by torch's kernel for sequences of several lengths, elsewhere video by video.
Shapes: B videos, N tokens of the longest row, R own tokens of all videos, D width, H heads, K head width.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from torch.utils.checkpoint import checkpoint

KERNEL_HEAD_WIDTHS = range(8, 257, 8)
"""The widths of heads that the kernel takes."""


class PackedRows(NamedTuple):
    """Where a batch's own tokens are.

    Attributes:
        places: (R,) rows of the flattened batch (B * N) that are a video's own tokens, ascending.
        video: (R,) the video of each.
        ends: (B + 1,) int32, where videos begin and end in the packed row.
        counts: the number of own tokens of each video.
        longest: N.
    """

    places: Tensor
    video: Tensor
    ends: Tensor
    counts: tuple[int, ...]
    longest: int

    @classmethod
    def of(cls, counts: tuple[int, ...], longest: int, device: torch.device) -> "PackedRows":
        """Rows of `longest` tokens, of which the first `counts` are each video's own."""
        counts_B = torch.tensor(counts, device=device)
        videos = torch.arange(len(counts), device=device)
        video = videos.repeat_interleave(counts_B, output_size=sum(counts))
        ends = F.pad(counts_B.cumsum(dim=0), (1, 0))
        places = torch.arange(sum(counts), device=device) - ends[video] + video * longest
        return cls(places, video, ends.int(), counts, longest)

    def pack(self, tokens_BND: Tensor) -> Tensor:
        """The own tokens (R, ...) of rows (B, N, ...)."""
        return tokens_BND.flatten(0, 1).index_select(0, self.places)

    def pad(self, tokens_RD: Tensor) -> Tensor:
        """Rows (B, N, D), in which padding is zero."""
        padded = tokens_RD.new_zeros(len(self.counts) * self.longest, tokens_RD.shape[1])
        return padded.index_copy(0, self.places, tokens_RD).unflatten(0, (len(self.counts), self.longest))


class TokenBlock(Protocol):
    """A transformer block over the tokens of a whole video: attention, then an MLP, each with a norm before it."""

    norm1: nn.LayerNorm
    attn: "RowAttention"
    norm2: nn.LayerNorm
    mlp: nn.Module
    drop_path: nn.Module


class RowAttention(Protocol):
    """Attention that can work on packed rows."""

    proj: nn.Module

    def over_rows(self, tokens_RD: Tensor, rows: PackedRows, key_bias_R: Tensor | None) -> Tensor:
        """Context (R, D) before `proj`."""
        ...


def run_packed(block: TokenBlock, tokens_RD: Tensor, rows: PackedRows, key_bias_R: Tensor | None) -> Tensor:
    """A block that takes nothing away, over packed rows; stochastic depth drops a video's updates as a whole."""

    def dropped(update_RD: Tensor) -> Tensor:
        if not block.drop_path.training or not getattr(block.drop_path, "drop_prob", 0):
            return update_RD
        scale = block.drop_path(update_RD.new_ones(len(rows.counts), 1))
        return update_RD * scale.index_select(0, rows.video)

    attended = block.attn.over_rows(block.norm1(tokens_RD), rows, key_bias_R)
    tokens_RD = tokens_RD + dropped(block.attn.proj(attended))
    return tokens_RD + dropped(block.mlp(block.norm2(tokens_RD)))


def through_packed(
    blocks: nn.ModuleList, tokens_BND: Tensor, size_BN: Tensor, rows: PackedRows, weigh: bool, recompute: bool
) -> Tensor:
    """Rows (B, N, D) after all blocks, which take nothing away; with `weigh` attention knows the tokens' sizes."""
    tokens = rows.pack(tokens_BND)
    bias = rows.pack(size_BN).log() if weigh else None
    for block in blocks:
        if recompute:
            tokens = checkpoint(run_packed, block, tokens, rows, bias, use_reentrant=False)
        else:
            tokens = run_packed(block, tokens, rows, bias)  # type: ignore[arg-type]
    return rows.pad(tokens)


def attend_rows(
    query_RHK: Tensor,
    key_RHK: Tensor,
    value_RHK: Tensor,
    rows: PackedRows,
    key_bias_R: Tensor | None,
    attend: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
) -> Tensor:
    """Context (R, H, K) of attention within each video.

    `attend` computes the context (1, N, 1, H * K) of a video alone, from parts (1, N, 1, H, K) and a bias (1, 1, N).
    """
    if key_bias_R is None and _has_kernel(query_RHK):
        # cuDNN's kernel, first choice on Hopper, is wrong for some lengths.
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            longest = max(rows.counts)
            context = varlen_attn(query_RHK, key_RHK, value_RHK, rows.ends, rows.ends, longest, longest)
        assert isinstance(context, Tensor)
        return context

    contexts = []
    biases = [None] * len(rows.counts) if key_bias_R is None else key_bias_R.split(rows.counts)
    videos = zip(*(part.split(rows.counts) for part in (query_RHK, key_RHK, value_RHK)), biases, strict=True)
    for query, key, value, bias in videos:
        bias_BGN = None if bias is None else bias[None, None]
        context = attend(query[None, :, None], key[None, :, None], value[None, :, None], bias_BGN)
        contexts.append(context.view_as(query))
    return torch.cat(contexts)


def _has_kernel(query_RHK: Tensor) -> bool:
    """Whether torch's kernel for sequences of several lengths takes these queries."""
    return (
        query_RHK.is_cuda
        and query_RHK.dtype in (torch.float16, torch.bfloat16)
        and query_RHK.shape[-1] in KERNEL_HEAD_WIDTHS
        and torch.cuda.get_device_capability(query_RHK.device) >= (8, 0)
    )
