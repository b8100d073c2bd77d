"""Writing texts about clips a token at a time, with a cache of keys and values.

Shapes: B clips, R texts (several a clip in beam search), M slots before the text, E shared width, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.bert_attention import KeysValues
from models.parts.generation import beam_search
from models.stoa.blocks import attend, blocks_of, joined, read, seen_of
from models.stoa.fusion import ClipMemory
from models.stoa.model import StoaModel


class Prefix(NamedTuple):
    """What texts see of their clips: of each fusion block the keys and values (B, H, M, K), and a mask (B, M)."""

    seen: list[KeysValues]
    mask: Tensor


class CaptionDecoder:
    """Predicts the token that follows a text, of which it keeps what later tokens will see.

    The past holds the keys and values of the text tower's blocks, then those of the fusion encoder's contents. A step
    adds one token to them, and one query that nothing later sees: the slot of the token to come.
    """

    def __init__(self, model: StoaModel) -> None:
        self.model = model

    def begin(self, memory: ClipMemory) -> Prefix:
        """Run the clips through the fusion encoder, as texts will see them: clips never see texts in writing."""
        fusion = self.model.fusion
        hidden, mask = fusion.prefix(memory)
        blocks, seen = blocks_of(fusion.transformer), []
        for block in blocks:
            seen.append(seen_of(block, hidden))
            if block is not blocks[-1]:
                hidden = attend(block, hidden, mask[:, None, None])
        return Prefix(seen, mask)

    def step(
        self, ids: Tensor, context: list[KeysValues], context_mask: Tensor | None, past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Logits (R, V) of what follows the past and the newest ids (R, 1), and the new past.

        `context` and `context_mask` are the prefix of B clips; consecutive texts are of the same clip.
        """
        num_written = 0 if past is None else past[0].keys.shape[2]
        state, text_past = self._encode_newest(ids, num_written, past)
        logits, fusion_past = self._predict(state, num_written, context, context_mask, past)
        return logits, [*text_past, *fusion_past]

    def _encode_newest(
        self, ids: Tensor, num_written: int, past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """The text tower's state (R, 1, E) of the newest token."""
        text = self.model.text
        hidden = text.token_embedding(ids) + text.positional_embedding[num_written]
        extended = []
        for index, block in enumerate(blocks_of(text.transformer)):
            own = seen_of(block, hidden)
            extended.append(own if past is None else joined(past[index], own))
            hidden = read(block, hidden, extended[-1])
        return text.ln_final(hidden) @ text.text_projection, extended

    def _predict(
        self,
        state_R1E: Tensor,
        num_written: int,
        context: list[KeysValues],
        context_mask: Tensor | None,
        past: list[KeysValues] | None,
    ) -> tuple[Tensor, list[KeysValues]]:
        """Logits (R, V) of the next token, and the contents' keys and values of each fusion block."""
        model, fusion = self.model, self.model.fusion
        assert context_mask is not None
        texts_per_clip = len(state_R1E) // len(context_mask)
        positions = fusion.text_positions(num_written + 2)[-2:]
        query = positions[1:].to(state_R1E.dtype).expand(len(state_R1E), -1, -1)
        hidden = torch.cat([state_R1E + positions[:1], query], dim=1)

        # Both see the clip and the contents up to the newest; the query alone sees itself.
        seen_prefix = context_mask.repeat_interleave(texts_per_clip, dim=0)
        seen_by_query = F.pad(seen_prefix, (0, num_written + 2), value=True)
        mask = torch.stack([seen_by_query, seen_by_query], dim=1)
        mask[:, 0, -1] = False

        blocks, extended = blocks_of(fusion.transformer), []
        num_text_blocks = len(model.text.transformer.resblocks)
        for index, block in enumerate(blocks):
            own = seen_of(block, hidden)
            newest, its_query = (KeysValues(*(part[:, :, slot] for part in own)) for slot in (slice(1), slice(1, 2)))
            extended.append(newest if past is None else joined(past[num_text_blocks + index], newest))
            clip = KeysValues(*(part.repeat_interleave(texts_per_clip, dim=0) for part in context[index]))
            seen = joined(clip, joined(extended[-1], its_query))
            # Nothing reads the content's last output.
            rows = slice(1, 2) if block is blocks[-1] else slice(0, 2)
            hidden = read(block, hidden[:, rows], seen, mask[:, None, rows])
        return model.vocabulary_logits(hidden[:, -1]), extended


class Written(NamedTuple):
    """Greedily written texts.

    Attributes:
        ids: (B, S), without the start token, up to and with the end token, then 0.
        log_probs: (B, S, V), of every step; of steps after the end they mean nothing.
    """

    ids: Tensor
    log_probs: Tensor


@torch.no_grad()
def write_greedily(model: StoaModel, memory: ClipMemory, start_id: int, end_id: int, max_tokens: int) -> Written:
    """The likeliest token after the other, at most `max_tokens`, until every text has ended."""
    decoder = CaptionDecoder(model)
    prefix = decoder.begin(memory)
    num_clips, device = len(memory.frames), memory.frames.device
    newest = torch.full((num_clips, 1), start_id, device=device)
    has_ended = torch.zeros(num_clips, 1, dtype=torch.bool, device=device)
    ids, log_probs, past = [], [], None

    for _ in range(max_tokens):
        logits, past = decoder.step(newest, prefix.seen, prefix.mask, past)
        log_probs.append(logits.float().log_softmax(dim=-1))
        newest = log_probs[-1].argmax(dim=-1, keepdim=True).masked_fill(has_ended, 0)
        ids.append(newest)
        has_ended = has_ended | (newest == end_id)
        if bool(has_ended.all()):
            break
    return Written(torch.cat(ids, dim=1), torch.stack(log_probs, dim=1))


@torch.no_grad()
def write_with_beams(
    model: StoaModel,
    memory: ClipMemory,
    start_id: int,
    end_id: int,
    *,
    num_beams: int,
    min_tokens: int,
    max_tokens: int,
) -> Tensor:
    """The likeliest text found for each clip, per token: ids (B, S), start token first, 0 after the end token."""
    decoder = CaptionDecoder(model)
    prefix = decoder.begin(memory)
    settings = {"num_beams": num_beams, "min_tokens": min_tokens, "max_tokens": max_tokens}
    return beam_search(decoder, prefix.seen, prefix.mask, start_id, end_id, **settings)
