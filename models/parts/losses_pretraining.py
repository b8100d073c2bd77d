"""Losses of pre-training beside contrast: pairs to match, words to guess, a teacher's features to meet.

Shapes: B rows, V visible tokens, K layers, C width of the teacher, S text tokens.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

NOT_ASKED = -100
MASKED, REPLACED = 0.8, 0.1
"""Which shares of the chosen words become [MASK], and another word; the rest stays as it is."""


class MatchingPairs(NamedTuple):
    """Pairs of which the first B match: row of the video and of the text, and the label, each (3 B,)."""

    video: Tensor
    text: Tensor
    label: Tensor


def matching_pairs(negative_video_B: Tensor, negative_text_B: Tensor) -> MatchingPairs:
    """Each row's own pair, then each text with its hard negative video, then each video with its negative text."""
    own = torch.arange(len(negative_video_B), device=negative_video_B.device)
    video, text = torch.cat([own, negative_video_B, own]), torch.cat([own, own, negative_text_B])
    label = (torch.arange(3 * len(own), device=own.device) < len(own)).long()
    return MatchingPairs(video, text, label)


def mask_words(
    ids_BS: Tensor, noise_3BS: Tensor, probability: float, allowed_BS: Tensor, mask_id: int, num_words: int
) -> tuple[Tensor, Tensor]:
    """Texts with some words hidden, and which words those were (B, S), `NOT_ASKED` elsewhere; BERT's rule.

    Args:
        noise_3BS: uniform in [0, 1): which words are chosen, what becomes of them, and by which word one is replaced.
        probability: that a word is chosen.
        allowed_BS: which words may be chosen: none that is padding or [CLS].
    """
    chosen, fate, other = noise_3BS
    is_target = (chosen < probability) & allowed_BS
    hidden = torch.where(is_target & (fate < MASKED), mask_id, ids_BS)
    is_replaced = is_target & (fate >= MASKED) & (fate < MASKED + REPLACED)
    hidden = torch.where(is_replaced, (other * num_words).long().clamp(max=num_words - 1), hidden)
    return hidden, ids_BS.masked_fill(~is_target, NOT_ASKED)


def masked_word_loss(logits_BSW: Tensor, labels_BS: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Mean or summed cross-entropy over the places that are asked."""
    logits, labels = logits_BSW.flatten(0, 1).float(), labels_BS.flatten()
    return F.cross_entropy(logits, labels, ignore_index=NOT_ASKED, reduction=reduction)


def feature_distance(student_KBVC: Tensor, teacher_KBVC: Tensor) -> Tensor:
    """The mean over layers and tokens of the squared distance of unit vectors, 2 - 2 cosine."""
    student, teacher = (F.normalize(part.float(), dim=-1) for part in (student_KBVC, teacher_KBVC))
    return (2 - 2 * (student * teacher).sum(dim=-1)).mean()
