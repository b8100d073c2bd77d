"""STOA-VLP as a writer of captions, as one that answers questions, and as one that chooses.

Shapes: B clips, P texts, A answers, N memory tokens, S text tokens, E shared width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.generation import nucleus_sampling
from models.stoa.model import pool_frames
from models.stoa.task_model import TaskModel
from models.stoa.writing import CaptionDecoder, write_greedily, write_with_beams


class CaptionModel(TaskModel):
    """Writes captions; nothing but the tap of the action branch is detached, unlike in pre-training.

    Args:
        start_id, end_id: the tokens at both ends of a text.
        label_smoothing: of the cross-entropy.
    """

    def __init__(self, *settings: Any, start_id: int, end_id: int, label_smoothing: float) -> None:
        super().__init__(*settings)
        self.start_id, self.end_id, self.label_smoothing = start_id, end_id, label_smoothing

    def context_loss(
        self, context_BNE: Tensor, ids_PS: Tensor, mask_PS: Tensor, context_mask: Tensor | None = None
    ) -> Tensor:
        """Loss (P,) of each text, summed over its tokens, given memories as tokens, P / B texts of each in order."""
        memory = self.project(context_BNE)
        if len(ids_PS) != len(context_BNE):
            clips = torch.arange(len(context_BNE), device=ids_PS.device)
            memory = memory.rows(clips.repeat_interleave(len(ids_PS) // len(context_BNE)))
        hidden = self.fusion.write(memory, self.encode_text(ids_PS, mask_PS).states)

        # Predict what is there alone, all tokens but the first: the vocabulary is large.
        is_written = mask_PS[:, 1:].bool()
        places = is_written.flatten().nonzero().squeeze(1)
        logits = self.vocabulary_logits(hidden.flatten(0, 1).index_select(0, places)).float()
        losses = F.cross_entropy(
            logits, ids_PS[:, 1:][is_written], reduction="none", label_smoothing=self.label_smoothing
        )
        by_token = losses.new_zeros(is_written.numel()).index_put((places,), losses)
        return by_token.view(is_written.shape).sum(dim=1)

    def generate(
        self,
        context_BNE: Tensor,
        context_mask: Tensor | None = None,
        *,
        num_beams: int = 1,
        min_tokens: int = 1,
        max_tokens: int = 31,
        top_p: float | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Ids (B, S) of a text for each memory, padded with 0 behind the end token; the start token may be left out.

        The likeliest token after the other with one beam, as published; beam search with more, or nucleus sampling,
        decided by `noise` (B, max_tokens), if `top_p` is given. Keys and values of what is written are kept.
        """
        memory = self.project(context_BNE)

        if top_p is not None:
            decoder = CaptionDecoder(self)
            prefix = decoder.begin(memory)
            if noise is None:
                noise = torch.rand((len(context_BNE), max_tokens), device=context_BNE.device)
            ends = (self.start_id, self.end_id)
            return nucleus_sampling(decoder, prefix.seen, prefix.mask, *ends, noise, top_p=top_p, min_tokens=min_tokens)

        if num_beams == 1 and min_tokens == 1:
            return write_greedily(self, memory, self.start_id, self.end_id, max_tokens).ids
        return write_with_beams(
            self,
            memory,
            self.start_id,
            self.end_id,
            num_beams=num_beams,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
        )


class ChoosingModel(TaskModel):
    """Compares options with videos as the published multiple choice does, for its own weights.

    A video's embedding there is the sum of its frames' features as they are, so that long ones count for more; in
    training, and everywhere else here, they have length 1 before they are summed.
    """

    def choose(self, video_BTCHW: Tensor, ids: Tensor, mask: Tensor, about: Tensor) -> Tensor:
        """Cosines (P,) of options, ids and mask (P, S), with the uint8 video `about` (P,)."""
        frames = self.encode_video(video_BTCHW).memory.frames
        video = pool_frames(frames, normalised=False)
        return (self.encode_text(ids, mask).embedding * video[about]).sum(dim=-1)


class AnsweringModel(TaskModel):
    """Predicts the first token of an answer, in a slot of its own behind the question.

    Args:
        label_smoothing: of the cross-entropy.
    """

    def __init__(self, *settings: Any, label_smoothing: float) -> None:
        super().__init__(*settings)
        self.label_smoothing = label_smoothing

    def ground_text(
        self, video_tokens_VNE: Tensor, ids_PS: Tensor, mask_PS: Tensor, about: Tensor | None = None
    ) -> Tensor:
        """States (P, 1, E) of answers' slots, of questions about the videos `about` (P,), or P / V each in order."""
        if about is None:
            videos = torch.arange(len(video_tokens_VNE), device=ids_PS.device)
            about = videos.repeat_interleave(len(ids_PS) // len(video_tokens_VNE))
        read = self.encode_text(ids_PS, mask_PS)
        return self.answer_states(self.project(video_tokens_VNE).rows(about), read.states, mask_PS).unsqueeze(1)

    def context_loss(
        self, context_A1E: Tensor, ids_AS: Tensor, mask_AS: Tensor, context_mask: Tensor | None = None
    ) -> Tensor:
        """Loss (A,) of the first token of each answer, given the state of its question's slot."""
        logits = self.vocabulary_logits(context_A1E[:, 0]).float()
        return F.cross_entropy(logits, ids_AS[:, 1], reduction="none", label_smoothing=self.label_smoothing)

    def first_tokens(self, states_P1E: Tensor) -> Tensor:
        """The likeliest first token (P,) of each answer, among the whole vocabulary."""
        return self.vocabulary_logits(states_P1E[:, 0]).float().argmax(dim=-1)

    def answer(
        self,
        question_states: Tensor,
        question_mask: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        shortlist: int = 128,
    ) -> Tensor:
        """The answer of a list whose first token is likeliest, as rows (P,) of `answer_ids`.

        Of answers that begin with the same token the first in the list is taken: the model knows no more of them.
        """
        first_tokens, place = answer_ids[:, 1].unique(return_inverse=True)
        rows = torch.arange(len(place), device=place.device)
        first_rows = rows.new_full((len(first_tokens),), len(rows)).scatter_reduce(0, place, rows, "amin")
        logits = self.vocabulary_logits(question_states[:, 0]).float()[:, first_tokens]
        return first_rows[logits.argmax(dim=-1)]

    def freeze_unused(self, losses: tuple[str, ...], contrast_reaches_frames: bool = True) -> None:
        """Freeze what the loss of answers does not reach."""
        assert losses == ("vqa",), losses
        super().freeze_unused(("qa",))
