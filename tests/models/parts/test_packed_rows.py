"""Packed rows: what the GPU's kernel for sequences of several lengths is told, and the way back to padded rows."""

import pytest
import torch
from torch import Tensor

from models.parts import packed_rows
from models.parts.attention import Attention
from models.parts.packed_rows import PackedRows

COUNTS, LONGEST = (3, 7, 1), 8


def rows() -> PackedRows:
    return PackedRows.of(COUNTS, LONGEST, torch.device("cpu"))


def test_packing_and_padding_are_inverse() -> None:
    padded = torch.randn(3, LONGEST, 4, generator=torch.Generator().manual_seed(0))
    packed = rows().pack(padded)
    own = [padded[video, :count] for video, count in enumerate(COUNTS)]
    assert torch.equal(packed, torch.cat(own))
    back = rows().pad(packed)
    for video, count in enumerate(COUNTS):
        assert torch.equal(back[video, :count], padded[video, :count])
        assert not back[video, count:].any()


@torch.no_grad()
def test_the_kernel_is_told_where_videos_begin_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for `varlen_attn` with its arguments, in plain attention: the same as video by video."""

    def plain(
        query: Tensor, key: Tensor, value: Tensor, ends: Tensor, ends_k: Tensor, most: int, most_k: int
    ) -> Tensor:
        assert ends.dtype == torch.int32 and torch.equal(ends, ends_k) and most == most_k == max(COUNTS)
        found = torch.full_like(query, torch.nan)
        for first, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            scores = torch.einsum("qhk,nhk->hqn", query[first:end], key[first:end]) * query.shape[-1] ** -0.5
            found[first:end] = torch.einsum("hqn,nhk->qhk", scores.softmax(dim=-1), value[first:end])
        return found

    torch.manual_seed(0)
    attention = Attention(16, 2)
    tokens = torch.randn(sum(COUNTS), 16)
    expected = attention.over_rows(tokens, rows())
    monkeypatch.setattr(packed_rows, "varlen_attn", plain)
    monkeypatch.setattr(packed_rows, "_has_kernel", lambda query: True)
    torch.testing.assert_close(attention.over_rows(tokens, rows()), expected, atol=1e-5, rtol=1e-5)
