"""BERT cut in two: the first layers read a text alone, the later ones also attend to a video or a question.

So the states of a text are computed once, and fused with each video it is compared with.
Shapes: B texts, V contexts, N context tokens, S text tokens, D width.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.models.umt import SplitTextConfig
from models.parts.bert import Embeddings, Predictions, TextLayer, initialise
from models.parts.bert_attention import KeysValues, Packing, Share

NOT_ASKED = -100


class TypedEmbeddings(Embeddings):
    """Words, positions, and the type of a first text."""

    def __init__(self, text: SplitTextConfig) -> None:
        super().__init__(text)
        self.token_type_embeddings = nn.Embedding(text.token_types, text.width)

    def forward(self, ids_BS: Tensor, first_position: int) -> Tensor:
        """Embeddings (B, S, D) of words of which the first stands at `first_position`."""
        end = first_position + ids_BS.shape[1]
        if end > self.position_embeddings.num_embeddings:
            most = self.position_embeddings.num_embeddings
            raise ValueError(f"a text of {end} tokens is longer than model.text.max_positions {most}")
        place = self.position_embeddings.weight[first_position:end] + self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(self.word_embeddings(ids_BS) + place))


class SplitLayers(nn.Module):
    """The stack, one level down as in BERT's names (`encoder.layer.0...`)."""

    def __init__(self, text: SplitTextConfig, depth: int, fusion_layer: int, context_width: int) -> None:
        super().__init__()
        widths = [None] * fusion_layer + [context_width] * (depth - fusion_layer)
        self.layer = nn.ModuleList(TextLayer(text, width) for width in widths)


class SplitBert(nn.Module):
    """BERT of `depth` layers, of which those from `fusion_layer` on attend to a context."""

    def __init__(self, text: SplitTextConfig, depth: int, fusion_layer: int, context_width: int) -> None:
        super().__init__()
        self.fusion_layer = fusion_layer
        self.embeddings = TypedEmbeddings(text)
        self.encoder = SplitLayers(text, depth, fusion_layer, context_width)
        self.apply(initialise)

    @property
    def _text_layers(self) -> list[TextLayer]:
        return [cast(TextLayer, layer) for layer in self.encoder.layer[: self.fusion_layer]]

    @property
    def _fusion_layers(self) -> list[TextLayer]:
        return [cast(TextLayer, layer) for layer in self.encoder.layer[self.fusion_layer :]]

    def project(self, context_VND: Tensor) -> list[KeysValues]:
        """Keys and values of contexts for each fusion layer, made once for all texts that attend to them."""
        return [layer.crossattention.project(context_VND) for layer in self._fusion_layers]

    def read(self, ids_BS: Tensor, mask_BS: Tensor, causal: bool = False) -> Tensor:
        """States (B, S, D) of texts alone, after the last layer before fusion; mask is 1 for real tokens."""
        hidden, seen = self.embeddings(ids_BS, 0), _seen(mask_BS, causal)
        for layer in self._text_layers:
            hidden, _ = layer(hidden, seen, ())
        return hidden

    def fuse(
        self,
        states_BSD: Tensor,
        mask_BS: Tensor,
        context: Iterable[KeysValues],
        context_mask_VN: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Last states (B, S, D) of texts that were read; each of V contexts serves B / V texts, in order."""
        hidden, seen = states_BSD, _seen(mask_BS, causal)
        context_seen = None if context_mask_VN is None else context_mask_VN[:, None, None, :].bool()
        for layer, projected in zip(self._fusion_layers, context, strict=True):
            hidden, _ = layer(hidden, seen, (Share(len(hidden), projected, context_seen),))
        return hidden

    def fuse_first(self, states_BSD: Tensor, mask_BS: Tensor, context: Iterable[Sequence[Share]]) -> Tensor:
        """The first token (B, D) of the same, without what does not reach it: other tokens of the last layer, padding.

        In training the padding stays: to count the real tokens the host would wait for the device.
        """
        packing = None if self.training else Packing.of(mask_BS)
        hidden = states_BSD if packing is None else packing.pack(states_BSD)
        seen, last = _seen(mask_BS, causal=False), len(self._fusion_layers) - 1
        for index, (layer, shares) in enumerate(zip(self._fusion_layers, context, strict=True)):
            hidden, _ = layer(hidden, seen, shares, None, packing, first_only=index == last)
        return hidden.squeeze(1)


class RankedAnswers(NamedTuple):
    """For each of B questions the rows (B, K) of its best answers, best first, and their probabilities (B, K)."""

    rows: Tensor
    probability: Tensor


class AnswerDecoder(nn.Module):
    """The fusion layers of a BERT, read from left to right, that score answers given the states of a question."""

    def __init__(self, text: SplitTextConfig) -> None:
        super().__init__()
        self.bert = SplitBert(text, text.depth - text.fusion_layer, 0, text.width)
        self.cls = nn.ModuleDict({"predictions": Predictions(text, self.bert.embeddings.word_embeddings)})
        self.cls.apply(initialise)

    def forward(self, ids_BS: Tensor, mask_BS: Tensor, question: list[KeysValues], question_mask_VN: Tensor) -> Tensor:
        """Logits (B, S, words) of what follows each token; each of V questions serves B / V texts, in order."""
        hidden = self.bert.read(ids_BS, mask_BS, causal=True)
        return self.cls["predictions"](self.bert.fuse(hidden, mask_BS, question, question_mask_VN, causal=True))

    def losses(
        self,
        ids_BS: Tensor,
        mask_BS: Tensor,
        question: list[KeysValues],
        question_mask_VN: Tensor,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """The summed cross-entropy (B,) of each text's tokens after its first."""
        logits = self(ids_BS[:, :-1], mask_BS[:, :-1], question, question_mask_VN)
        target = ids_BS[:, 1:].masked_fill(mask_BS[:, 1:] == 0, NOT_ASKED)
        loss = F.cross_entropy(
            logits.flatten(0, 1).float(), target.flatten(), reduction="none", label_smoothing=label_smoothing
        )
        return loss.view_as(target).sum(dim=1)

    @torch.no_grad()
    def rank(
        self,
        question_states_BND: Tensor,
        question_mask_BN: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        shortlist: int,
        answers_at_once: int = 256,
    ) -> RankedAnswers:
        """The `shortlist` answers of a list (A, S) whose first word is likeliest, ranked by the whole answer.

        As in the reference the first word counts twice: its log-probability is added to that of the whole answer.
        Where fewer answers are given than wanted, all are ranked.
        """
        question = self.bert.project(question_states_BND)
        shortlist = min(shortlist, len(answer_ids))

        # All answers begin alike, so one step gives the first word of each.
        start = answer_ids[:1, :1].expand(len(question_states_BND), 1)
        first_words = self(start, torch.ones_like(start), question, question_mask_BN)[:, 0].float().log_softmax(dim=-1)
        first_word = first_words.index_select(1, answer_ids[:, 1])
        # A stable order, so that of answers that begin alike the first in the list are taken.
        likeliest = first_word.sort(dim=1, descending=True, stable=True)
        first_word, candidates = likeliest.values[:, :shortlist], likeliest.indices[:, :shortlist]

        log_likelihood = []
        at_once = max(1, answers_at_once // shortlist)
        for first in range(0, len(candidates), at_once):
            rows = slice(first, first + at_once)
            answers = candidates[rows].flatten()
            length = int(answer_mask[answers].sum(dim=-1).max())  # one long answer is not to slow down all
            context = [KeysValues(keys[rows], values[rows]) for keys, values in question]
            losses = self.losses(
                answer_ids[answers, :length], answer_mask[answers, :length], context, question_mask_BN[rows]
            )
            log_likelihood.append(-losses.unflatten(0, (-1, shortlist)))
        score = (first_word + torch.cat(log_likelihood)).softmax(dim=-1)

        ranking = score.sort(dim=1, descending=True, stable=True)
        return RankedAnswers(candidates.gather(1, ranking.indices), ranking.values)


def _seen(mask_BS: Tensor, causal: bool) -> Tensor:
    """Which tokens each token may see, spreading to (B, H, S, S)."""
    seen = mask_BS[:, None, None, :].bool()
    if causal:
        length = mask_BS.shape[1]
        seen = seen & torch.ones(length, length, dtype=torch.bool, device=mask_BS.device).tril()
    return seen
