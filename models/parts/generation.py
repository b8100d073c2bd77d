"""Writing text with the decoder: beam search and nucleus sampling over a key-value cache.

Scores, length penalty and stopping follow `transformers`' generate, and the tests hold the two against each other.
Shapes: B contexts, M beams each, S tokens written, V vocabulary.
"""

from typing import Protocol

import torch
from torch import Tensor

from models.parts.bert_attention import KeysValues

NEVER = -1e9


class StepDecoder(Protocol):
    """Predicts the next word, token by token; see `TextDecoder.step`."""

    def step(
        self, ids: Tensor, context: list[KeysValues], context_mask: Tensor | None, past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Logits (R, V) of the word that follows the past and `ids` (R, S), and the new past."""
        ...


@torch.no_grad()
def beam_search(
    decoder: StepDecoder,
    context: list[KeysValues],
    context_mask: Tensor | None,
    start_id: int,
    end_id: int,
    *,
    num_beams: int,
    min_tokens: int,
    max_tokens: int,
) -> Tensor:
    """The likeliest text found for each context, per token: ids (B, S), [DEC] first, padded with 0 after [SEP].

    Keeps the `num_beams` likeliest unfinished texts, and as many finished ones, ranked by mean log-likelihood. A
    context is done when no unfinished text can still enter the finished ones.
    """
    batch, device = context[0].keys.shape[0], context[0].keys.device
    rows = torch.arange(batch, device=device)[:, None]
    running = torch.full((batch, num_beams, max_tokens + 1), 0, dtype=torch.int64, device=device)
    running[..., 0] = start_id
    best_half = torch.arange(2 * num_beams, device=device) < num_beams

    # All beams start with the same text: only the first counts until they differ.
    running_score = torch.full((batch, num_beams), NEVER, device=device)
    running_score[:, 0] = 0

    # The finished texts, and the contexts that are done.
    finished, finished_score = running.clone(), torch.full((batch, num_beams), NEVER, device=device)
    closed = torch.zeros((batch, 1), dtype=torch.bool, device=device)

    newest, past = running[..., :1].flatten(0, 1), None
    for written in range(1, max_tokens + 1):
        # Score the next word of every beam; no text ends before `min_tokens`.
        logits, past = decoder.step(newest, context, context_mask, past)
        word_score = logits.float().log_softmax(dim=-1).unflatten(0, (batch, num_beams))
        if written <= min_tokens:
            word_score[..., end_id] = -torch.inf

        vocabulary = word_score.shape[-1]
        # Take twice as many candidates as beams: even if half of them end here, enough are left to fill the beams.
        score, flat = (running_score[..., None] + word_score).flatten(1).topk(2 * num_beams, dim=1)
        parent, word = flat // vocabulary, flat % vocabulary
        texts = running[rows, parent]
        texts[..., written] = word
        ends = word == end_id

        # Candidates that end enter the finished texts, as do all at the longest length. Ends in the second
        # half stay out: `num_beams` candidates are better.
        enters = (ends | (written == max_tokens)) & best_half & ~closed
        pool_score = torch.cat([finished_score, torch.where(enters, score / written, NEVER)], dim=1)
        finished_score, chosen = pool_score.topk(num_beams, dim=1)
        finished = torch.cat([finished, texts], dim=1)[rows, chosen]

        # The best candidates that have not ended are the next beams.
        running_score, chosen = torch.where(ends, NEVER, score).topk(num_beams, dim=1)
        running = texts[rows, chosen]

        # A closed context stays closed: its text must not depend on how long the rest of the batch runs.
        closed = closed | (running_score[:, :1] / written <= finished_score[:, -1:])
        if bool(closed.all()):
            break

        # Reorder the cache so that each beam finds the keys and values of its own text.
        parent = (parent.gather(1, chosen) + rows * num_beams).flatten()
        past = [KeysValues(keys[parent], values[parent]) for keys, values in past]
        newest = running[..., written : written + 1].flatten(0, 1)
    return _trim(finished[:, 0])


@torch.no_grad()
def nucleus_sampling(
    decoder: StepDecoder,
    context: list[KeysValues],
    context_mask: Tensor | None,
    start_id: int,
    end_id: int,
    noise: Tensor,
    *,
    top_p: float,
    min_tokens: int,
) -> Tensor:
    """Write a text for each context, each word drawn from the likeliest that together hold `top_p`: ids (B, S).

    `noise` (B, max_tokens), uniform in [0, 1), decides every draw, so that a text depends on its own row alone.
    """
    batch, max_tokens = noise.shape
    texts = torch.zeros((batch, max_tokens + 1), dtype=torch.int64, device=noise.device)
    texts[:, 0] = start_id

    done, past = torch.zeros(batch, dtype=torch.bool, device=noise.device), None
    for written in range(1, max_tokens + 1):
        logits, past = decoder.step(texts[:, written - 1 : written], context, context_mask, past)
        if written <= min_tokens:
            logits[:, end_id] = -torch.inf

        # The nucleus: the likeliest words, up to and including the one that brings their sum to `top_p`.
        likelihood, word = logits.double().softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        held = likelihood.cumsum(dim=-1)
        inside = held - likelihood < top_p
        size = inside.sum(dim=-1, keepdim=True)

        # Invert the cumulative distribution: draw the word in whose share of the nucleus the noise falls. Rounding
        # must not push the word out of the nucleus.
        choice = (held <= noise[:, written - 1 : written] * held.gather(1, size - 1)).sum(dim=-1, keepdim=True)
        texts[:, written] = torch.where(done, 0, word.gather(1, choice.minimum(size - 1)).squeeze(1))

        done = done | (texts[:, written] == end_id)
        if bool(done.all()):
            break
    return _trim(texts)


def _trim(texts: Tensor) -> Tensor:
    """Cut the columns that are padding in every text."""
    return texts[:, : int((texts != 0).any(dim=0).nonzero().max()) + 1]
