"""What TESTA's models do with a text decoder: the losses of texts, written texts, and the best answer of a list.

Shapes: B batch, V contexts, N context tokens, S text tokens, A answers, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.bert import TextDecoder
from models.parts.bert_attention import KeysValues, Memory
from models.parts.generation import beam_search, nucleus_sampling
from models.parts.tokenizer import with_first

PAIRS_AT_ONCE = 256
"""Question-answer pairs scored in one batch: 0.3 GB of logits for answers of ten tokens."""


class WritesTexts(nn.Module):
    """The methods of a model with a text decoder, which may be None for a task that writes no text.

    Attributes:
        dec_token_id, sep_token_id: ids of [DEC] and [SEP] in the tokenizer.
    """

    text_decoder: TextDecoder | None
    dec_token_id: int
    sep_token_id: int
    label_smoothing: float

    def context_loss(self, context: Tensor, ids: Tensor, mask: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """Label-smoothed loss (B,) of each text, summed over its tokens after the first, which becomes [DEC].

        The decoder attends to `context` (V, N, D): video tokens for captions, question states for answers. Each row
        serves B / V texts, in order.
        """
        seen = self._own_tokens(context) if context_mask is None else context_mask
        return self.text_loss(Memory(self._decoder().bert.project(context), seen), ids, mask)

    def text_loss(self, memory: Memory, ids: Tensor, mask: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """Like `context_loss`, for a context that is already projected."""
        context = list(memory.layers)
        context_mask = memory.mask if context_mask is None else context_mask

        # No word follows the last token, so it is no input. Sliced before the logits, which then need no copy.
        started = with_first(ids, self.dec_token_id)[:, :-1]
        logits = self._decoder()(started, mask[:, :-1], context, context_mask).flatten(0, 1)

        # Each token predicts the next one; padding does not count.
        target = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        loss = F.cross_entropy(logits.float(), target.flatten(), reduction="none", label_smoothing=self.label_smoothing)
        return loss.view_as(target).sum(dim=1)

    @torch.no_grad()
    def generate(
        self,
        context: Tensor,
        context_mask: Tensor | None = None,
        *,
        num_beams: int = 3,
        min_tokens: int = 1,
        max_tokens: int = 64,
        top_p: float | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Write a text for each context (B, N, D): ids (B, S) from [DEC] on, padded after [SEP].

        Uses beam search, or nucleus sampling if `top_p` is given, which ignores `num_beams`. `noise` (B, max_tokens),
        uniform in [0, 1), decides what nucleus sampling draws; without it, fresh noise is drawn.
        """
        decoder = self._decoder()
        projected = decoder.bert.project(context)
        context_mask = self._own_tokens(context) if context_mask is None else context_mask
        arguments = (decoder, projected, context_mask, self.dec_token_id, self.sep_token_id)

        if top_p is None:
            return beam_search(*arguments, num_beams=num_beams, min_tokens=min_tokens, max_tokens=max_tokens)
        if noise is None:
            noise = torch.rand((len(context), max_tokens), device=context.device)
        return nucleus_sampling(*arguments, noise, top_p=top_p, min_tokens=min_tokens)

    @torch.no_grad()
    def answer(
        self,
        question_states: Tensor,
        question_mask: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        shortlist: int = 128,
    ) -> Tensor:
        """Choose the best of a list of answers for each question; returns rows (B,) of `answer_ids` (A, S).

        The first word selects a `shortlist` of answers, and the loss of the whole answer ranks them. Ties go to the
        first in the list. `question_states` (B, S, D) come from `ground_text`.
        """
        decoder = self._decoder()
        context = decoder.bert.project(question_states)

        # One decoder step from [DEC] gives the likelihood of each answer's first word.
        start = torch.full(
            (len(question_states), 1),
            self.dec_token_id,
            dtype=torch.int64,
            device=answer_ids.device,
        )
        word_scores, _ = decoder.step(start, context, question_mask, past=None)
        likelihood = word_scores.float().softmax(dim=-1).index_select(1, answer_ids[:, 1])

        # Answers that share their first word tie here: a stable sort settles which of them are ranked.
        best_first = likelihood.sort(dim=1, descending=True, stable=True).indices
        candidates = best_first[:, :shortlist]

        # Score the whole answers, in batches of at most PAIRS_AT_ONCE pairs.
        questions_at_once = max(1, PAIRS_AT_ONCE // candidates.shape[1])
        losses = []
        for first in range(0, len(candidates), questions_at_once):
            rows = slice(first, first + questions_at_once)
            memory = Memory([KeysValues(keys[rows], values[rows]) for keys, values in context])

            losses_of_rows = []
            for answers in candidates[rows].split(PAIRS_AT_ONCE, dim=1):
                # One long answer must not slow down all batches.
                length = int(answer_mask[answers].sum(dim=-1).max())
                ids = answer_ids[answers, :length].flatten(0, 1)
                mask = answer_mask[answers, :length].flatten(0, 1)
                loss = self.text_loss(memory, ids, mask, question_mask[rows])
                losses_of_rows.append(loss.view_as(answers))
            losses.append(torch.cat(losses_of_rows, dim=1))

        # A loss that is NaN never wins. Of equally good answers, take the first in the list.
        loss = torch.cat(losses).nan_to_num(nan=torch.inf)
        best = loss == loss.min(dim=1, keepdim=True).values
        return candidates.masked_fill(~best, len(answer_ids)).min(dim=1).values

    def _own_tokens(self, video_tokens: Tensor) -> Tensor | None:
        """Which tokens of videos texts may attend to, (V, N); None where none is padding."""
        raise NotImplementedError

    def _decoder(self) -> TextDecoder:
        if self.text_decoder is None:
            raise ValueError("this model has no text decoder: it was built for a task that writes no text")
        return self.text_decoder
