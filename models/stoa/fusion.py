"""The encoder over frames, trajectories, actions and text together.

Its sequence: [frames][separator, the mean of the frames][trajectories][actions][text]. Each slot has its own position
in one table. The separator has none, nor has the end of the text, except in writing.

Shapes: B clips, P pairs of a clip and a text, T frames, N trajectories, A actions, M slots before the text, S text
tokens, E width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.parts.clip.blocks import ClipTransformer
from models.stoa.blocks import attend, blocks_of, read, seen_of
from models.stoa.sizes import StoaSizes


class ClipMemory(NamedTuple):
    """What the fusion encoder sees of clips.

    Attributes:
        frames: (B, T, E).
        trajectories, trajectory_mask: (B, N, E), and bool (B, N), False for padding; None without trajectories.
        actions: (B, A, E); None without actions.
    """

    frames: Tensor
    trajectories: Tensor | None
    trajectory_mask: Tensor | None
    actions: Tensor | None

    def rows(self, index: Tensor) -> "ClipMemory":
        """The clips at `index` (P,), which may name a clip several times."""
        # Not `part[index]`, whose gradient adds up shared rows in no fixed order.
        chosen = [None if part is None else part.index_select(0, index) for part in self]
        return ClipMemory(*chosen)  # type: ignore[arg-type]

    def as_tokens(self) -> Tensor:
        """One row of tokens (B, N, E) per clip, as stores and caches take it; padding is exactly zero."""
        parts = [part for part in (self.frames, self.trajectories, self.actions) if part is not None]
        return torch.cat(parts, dim=1)

    @classmethod
    def of_tokens(cls, tokens_BNE: Tensor, sizes: StoaSizes) -> "ClipMemory":
        """Rebuild the memory from `as_tokens`, with any number of frames."""
        trajectories, mask, actions = None, None, None
        if sizes.actions:
            tokens_BNE, actions = tokens_BNE.tensor_split([-sizes.num_actions], dim=1)
        if sizes.objects == "fusion":
            tokens_BNE, trajectories = tokens_BNE.tensor_split([-sizes.num_trajectories], dim=1)
            mask = (trajectories != 0).any(dim=-1)
        return cls(tokens_BNE, trajectories, mask, actions)

    def with_detached_frames(self) -> "ClipMemory":
        """A memory without gradient to the frames' features."""
        return self._replace(frames=self.frames.detach())


class Fused(NamedTuple):
    """The fusion encoder's outputs, each where its input stood.

    Attributes:
        frames, separator, text: (P, T, E), (P, E), (P, S, E).
        trajectories, actions: (P, N, E) and (P, A, E), None where there are none.
    """

    frames: Tensor
    separator: Tensor
    trajectories: Tensor | None
    actions: Tensor | None
    text: Tensor


class FusionEncoder(nn.Module):
    """Blocks of CLIP's shape over all of a pair's tokens, and the table of positions."""

    def __init__(self, sizes: StoaSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.transformer = ClipTransformer(sizes.embed_dim, sizes.fusion_depth, sizes.fusion_heads, "quick_gelu")
        self.positional_embedding = nn.Parameter(torch.randn(sizes.fusion_positions, sizes.embed_dim) * 0.01)

    def prefix(self, memory: ClipMemory, positioned_frames: bool = True) -> tuple[Tensor, Tensor]:
        """The slots before the text, (B, M, E), and their mask, bool (B, M), False for padding."""
        sizes, positions = self.sizes, self.positional_embedding
        frames, separator = memory.frames, memory.frames.mean(dim=1, keepdim=True)
        parts = [frames + positions[: frames.shape[1]] if positioned_frames else frames, separator]
        masks = [torch.ones(frames.shape[0], frames.shape[1] + 1, dtype=torch.bool, device=frames.device)]

        # Positions are counted for a full sequence, so an absent or shorter part shifts no other.
        first = sizes.num_frames + 1
        if memory.trajectories is not None:
            assert memory.trajectory_mask is not None
            parts.append(memory.trajectories + positions[first : first + memory.trajectories.shape[1]])
            masks.append(memory.trajectory_mask)
        first += sizes.num_trajectories
        if memory.actions is not None:
            parts.append(memory.actions + positions[first : first + memory.actions.shape[1]])
            masks.append(masks[0].new_ones(memory.actions.shape[:2]))
        return torch.cat(parts, dim=1), torch.cat(masks, dim=1)

    def text_positions(self, num_tokens: int) -> Tensor:
        """Positions (S, E) of a text's tokens."""
        start = self.sizes.text_start
        return self.positional_embedding[start : start + num_tokens]

    def place_text(self, states_PSE: Tensor, mask_PS: Tensor) -> Tensor:
        """Text tokens with their positions, the end token without: what is read, not written."""
        slots = torch.arange(states_PSE.shape[1], device=states_PSE.device)
        is_end = slots == mask_PS.sum(dim=1, keepdim=True) - 1
        return states_PSE + torch.where(is_end.unsqueeze(-1), 0.0, self.text_positions(states_PSE.shape[1]))

    def forward(self, memory: ClipMemory, placed_PSE: Tensor, mask_PS: Tensor) -> Fused:
        """Fuse each clip with the placed text of the same row."""
        prefix, prefix_mask = self.prefix(memory)
        mask = torch.cat([prefix_mask, mask_PS.bool()], dim=1)[:, None, None]
        hidden = torch.cat([prefix, placed_PSE], dim=1)
        for block in blocks_of(self.transformer):
            hidden = attend(block, hidden, mask)
        return self._by_kind(hidden, memory)

    def read_slots(self, memory: ClipMemory, placed_PSE: Tensor, mask_PS: Tensor, slots_PQ: Tensor) -> Tensor:
        """Outputs (P, Q, E) of some slots only; the last block computes no others."""
        prefix, prefix_mask = self.prefix(memory)
        is_key = torch.cat([prefix_mask, mask_PS.bool()], dim=1)

        # On a CPU, drop a mask that hides nothing; checking it on a GPU would make the host wait.
        hides_nothing = not is_key.is_cuda and not torch.is_grad_enabled() and bool(is_key.all())
        mask = None if hides_nothing else is_key[:, None, None]

        hidden = torch.cat([prefix, placed_PSE], dim=1)
        *blocks, last = blocks_of(self.transformer)
        for block in blocks:
            hidden = attend(block, hidden, mask)

        wanted = hidden.gather(1, slots_PQ.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return read(last, wanted, seen_of(last, hidden), mask)

    def read_text(self, memory: ClipMemory, placed_PSE: Tensor, mask_PS: Tensor, tokens_PQ: Tensor) -> Tensor:
        """Outputs (P, Q, E) of some tokens of the texts."""
        return self.read_slots(memory, placed_PSE, mask_PS, tokens_PQ + self.num_before_text(memory))

    def read_pair(self, memory: ClipMemory, placed_PSE: Tensor, mask_PS: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the separator and of the text's end, (P, E) each, which decide whether a pair matches."""
        end = self.num_before_text(memory) + mask_PS.sum(dim=1) - 1
        slots = torch.stack([torch.full_like(end, memory.frames.shape[1]), end], dim=1)
        return self.read_slots(memory, placed_PSE, mask_PS, slots).unbind(dim=1)  # type: ignore[return-value]

    def num_before_text(self, memory: ClipMemory) -> int:
        """M, the number of slots before the text."""
        parts = (memory.frames, memory.trajectories, memory.actions)
        return 1 + sum(part.shape[1] for part in parts if part is not None)

    def write(self, memory: ClipMemory, states_PSE: Tensor, positioned_frames: bool = True) -> Tensor:
        """States (P, S - 1, E) that predict tokens 1, 2, ... from the tokens before each, in one pass.

        The published method runs the encoder once for each token: slots before it hold the text, the slot itself its
        position alone. Here the text is a causal stream of contents, and each slot to be predicted a query that sees
        the clip, the contents before it, and itself (as in XLNet), which gives the same states.
        """
        prefix, prefix_mask = self.prefix(memory, positioned_frames)
        num_tokens = states_PSE.shape[1]
        positions = self.text_positions(num_tokens)
        contents = (states_PSE + positions)[:, :-1]
        queries = positions[1:].to(contents.dtype).expand(len(contents), -1, -1)
        mask = writing_mask(prefix_mask, num_tokens - 1)

        # Only the queries predict, so the last block computes nothing else.
        hidden = torch.cat([prefix, contents, queries], dim=1)
        *blocks, last = blocks_of(self.transformer)
        for block in blocks:
            hidden = attend(block, hidden, mask)
        num_queries = num_tokens - 1
        return read(last, hidden[:, -num_queries:], seen_of(last, hidden), mask[:, :, -num_queries:])

    def _by_kind(self, hidden: Tensor, memory: ClipMemory) -> Fused:
        num_frames = memory.frames.shape[1]
        frames, separator, rest = hidden[:, :num_frames], hidden[:, num_frames], hidden[:, num_frames + 1 :]
        trajectories, actions = None, None
        if memory.trajectories is not None:
            trajectories, rest = rest.tensor_split([memory.trajectories.shape[1]], dim=1)
        if memory.actions is not None:
            actions, rest = rest.tensor_split([memory.actions.shape[1]], dim=1)
        return Fused(frames, separator, trajectories, actions, rest)


def writing_mask(prefix_mask_PM: Tensor, num_tokens: int) -> Tensor:
    """Who sees whom in [prefix][contents][queries]: bool (P, 1, M + 2 S, M + 2 S), True where a key may be seen.

    The prefix sees itself, content i the prefix and contents up to i, query i these and itself.
    """
    device, num_prefix = prefix_mask_PM.device, prefix_mask_PM.shape[1]
    causal = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=device).tril()
    nothing, itself = torch.zeros_like(causal), torch.eye(num_tokens, dtype=torch.bool, device=device)
    among_text = torch.cat([torch.cat([causal, nothing], dim=1), torch.cat([causal, itself], dim=1)])

    prefix_sees_text = torch.zeros(num_prefix, 2 * num_tokens, dtype=torch.bool, device=device)
    text_mask = torch.cat([prefix_sees_text, among_text])
    to_prefix = prefix_mask_PM[:, None].expand(-1, num_prefix + 2 * num_tokens, -1)
    return torch.cat([to_prefix, text_mask.expand(len(to_prefix), -1, -1)], dim=2).unsqueeze(1)


def without_unused_trajectories(memory: ClipMemory) -> ClipMemory:
    """The same clips without the last trajectories that are padding in all of them."""
    if memory.trajectories is None or memory.trajectory_mask is None:
        return memory
    places = memory.trajectory_mask.any(dim=0).nonzero()
    used = int(places.max()) + 1 if len(places) else 0
    return memory._replace(trajectories=memory.trajectories[:, :used], trajectory_mask=memory.trajectory_mask[:, :used])
