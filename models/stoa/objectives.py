"""The losses of STOA-VLP as functions of encoded clips and texts; whatever is random in them is drawn elsewhere.

Shapes: B clips and their texts, S text tokens, E shared width, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.losses import matching
from models.parts.processes import Summed
from models.stoa.alignment import assign, squared_distance
from models.stoa.fusion import ClipMemory
from models.stoa.model import StoaModel, TextFeatures, VideoFeatures

MASKED_ID = 0
"""What a masked token is for the text tower. It is a word of CLIP's vocabulary ("!"), as in the reference."""


class Tags(NamedTuple):
    """Which tokens of the texts are nouns, and which verbs: bool (B, S)."""

    noun: Tensor
    verb: Tensor


def contrastive_loss(similarity_BB: Tensor) -> Tensor:
    """Symmetric cross-entropy () of scaled similarities whose diagonal holds the pairs (VTC)."""
    target = torch.arange(len(similarity_BB), device=similarity_BB.device)
    return (F.cross_entropy(similarity_BB, target) + F.cross_entropy(similarity_BB.T, target)) / 2


def matching_loss(
    model: StoaModel,
    memory: ClipMemory,
    texts: TextFeatures,
    hard_video: Tensor,
    hard_text: Tensor,
    reference_form: bool = False,
    has_negative: Tensor | None = None,
) -> tuple[Summed, Tensor]:
    """Cross-entropy over three pairs a clip, and their logits (3 B, 2) (VTM).

    For each clip: the pair itself, its text with the video `hard_video` (B,), its video with the text `hard_text`
    (B,). These index the rows of `memory` and `texts`, of which the first B are the clips' own; further rows, such as
    other processes', may follow them. Of clips without `has_negative` (B,) the pair itself alone is counted.
    """
    own = torch.arange(len(hard_video), device=hard_video.device)
    videos = torch.stack([own, hard_video, own], dim=1).flatten()
    about = torch.stack([own, own, hard_text], dim=1).flatten()
    states, mask = texts.states.index_select(0, about), texts.mask.index_select(0, about)
    logits = model.match_memory(memory.rows(videos), states, mask, reference_form)
    is_match = torch.tensor([1, 0, 0], device=logits.device).repeat(len(own))
    if has_negative is None:
        has_negative = torch.ones_like(own, dtype=torch.bool)
    counted = has_negative.repeat_interleave(3) | is_match.bool()
    return Summed(matching(logits, is_match, counted), counted.sum()), logits


def masked_states(model: StoaModel, ids: Tensor, mask: Tensor, masked: Tensor, detach: bool = True) -> Tensor:
    """What the fusion encoder reads of texts whose `masked` (B, S) tokens are hidden, (B, S, E).

    They are hidden from the text tower and from the fusion encoder, where their slots keep their positions.
    """
    states = model.encode_text(ids.masked_fill(masked, MASKED_ID), mask).states
    if detach:
        states = states.detach()
    return model.fusion.place_text(states.masked_fill(masked.unsqueeze(-1), 0.0), mask)


def masked_language_loss(
    model: StoaModel, memory: ClipMemory, ids: Tensor, mask: Tensor, masked: Tensor
) -> tuple[Summed, Tensor]:
    """Cross-entropy over the masked tokens (B, S) of all texts, and their logits (MLM)."""
    placed = masked_states(model, ids, mask, masked)
    slots = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
    hidden = model.fusion.read_text(memory, placed, mask, slots)
    logits = model.vocabulary_logits(_chosen_slots(hidden, masked))
    return _cross_entropy(logits, ids[masked]), logits


def writing_loss(
    model: StoaModel,
    memory: ClipMemory,
    states_BSE: Tensor,
    ids: Tensor,
    mask: Tensor,
    first: Tensor,
    positioned_frames: bool = True,
) -> Summed:
    """Cross-entropy over the tokens from position `first` (B,) to the end token (PLM; captioning from 1)."""
    hidden = model.fusion.write(memory, states_BSE, positioned_frames)
    slots = torch.arange(1, ids.shape[1], device=ids.device)
    is_written = mask[:, 1:].bool() & (slots >= first[:, None])
    return _cross_entropy(model.vocabulary_logits(_chosen_slots(hidden, is_written)), ids[:, 1:][is_written])


class Alignment(NamedTuple):
    """The token of each trajectory and each action, or -1, and the loss of both kinds of pairs together."""

    objects: Tensor | None
    actions: Tensor | None
    loss: Summed


def alignment_loss(
    memory: ClipMemory,
    texts: TextFeatures,
    tags: Tags,
    reference_form: bool = False,
    end_is_candidate: bool = True,
) -> Alignment:
    """Mean squared error between trajectories and nouns, and between actions and verbs, each optimally assigned.

    The end of the text takes part as a noun and as a verb; unless `end_is_candidate`, only in texts without any. Text
    features get no gradient. `reference_form` leaves out the actions of clips without a trajectory.
    """
    states, mask = texts.states.detach(), texts.mask
    slots = torch.arange(mask.shape[1], device=mask.device)
    is_end = slots == mask.sum(dim=1, keepdim=True) - 1
    nouns, verbs = (_candidates(tagged.bool() & mask, is_end, end_is_candidate) for tagged in tags)
    zero = states.new_zeros((), dtype=torch.float32)
    objects, actions, loss = None, None, Summed(zero, mask.new_zeros((), dtype=torch.int64))

    if memory.trajectories is not None:
        assert memory.trajectory_mask is not None
        objects = assign(memory.trajectories, memory.trajectory_mask, states, nouns)
        loss = loss.plus(squared_distance(memory.trajectories, states, objects))
    if memory.actions is not None:
        counted = torch.ones(memory.actions.shape[:2], dtype=torch.bool, device=states.device)
        if reference_form and memory.trajectory_mask is not None:
            counted &= memory.trajectory_mask.any(dim=1, keepdim=True)
        actions = assign(memory.actions, counted, states, verbs)
        loss = loss.plus(squared_distance(memory.actions, states, actions))
    return Alignment(objects, actions, loss)


def _candidates(tagged_BS: Tensor, is_end_BS: Tensor, end_is_candidate: bool) -> Tensor:
    """The tokens that may be assigned, bool (B, S): tagged ones, and the end, always or where there are no others."""
    is_needed = is_end_BS if end_is_candidate else is_end_BS & ~tagged_BS.any(dim=1, keepdim=True)
    return tagged_BS | is_needed


def answer_loss(model: StoaModel, memory: ClipMemory, texts: TextFeatures, first_ids: Tensor) -> tuple[Summed, Tensor]:
    """Cross-entropy with the first token of each answer, and the logits (B, V)."""
    logits = model.answer_logits(memory, texts.states, texts.mask)
    return _cross_entropy(logits, first_ids), logits


def contrast(model: StoaModel, video: VideoFeatures, texts: TextFeatures) -> Tensor:
    """Scaled similarities (B, B), texts by videos."""
    return model.similarity(texts.embedding, video.embedding)


def _chosen_slots(hidden_BSE: Tensor, is_chosen_BS: Tensor) -> Tensor:
    """The states (R, E) of the chosen slots; unlike that of `hidden[is_chosen]`, the gradient has a fixed order."""
    places = is_chosen_BS.flatten().nonzero().squeeze(1)
    return hidden_BSE.flatten(0, 1).index_select(0, places)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Summed:
    total = F.cross_entropy(logits.float(), targets, reduction="sum")
    return Summed(total, torch.tensor(len(targets), device=targets.device))


@torch.no_grad()
def candidate_probabilities(
    model: StoaModel,
    memory: ClipMemory,
    texts: TextFeatures,
    videos: Tensor,
    about: Tensor,
    reference_form: bool = False,
) -> Tensor:
    """The probability (P,) that each pair matches, of the clips `videos` (P,) and the texts `about` (P,).

    In reference form give all candidates of one query, and no others, in one call: they are normalised together.
    """
    states, mask = texts.states.index_select(0, about), texts.mask.index_select(0, about)
    logits = model.match_memory(memory.rows(videos), states, mask, reference_form)
    return logits.softmax(dim=-1)[:, 1]
