"""What STOA-VLP's benchmarks do, our way or the reference's in plain lines, on random clips and texts.

ViT-B/16 at 224 pixels, 12 frames, 10 objects a frame, texts of 32 tokens; fp32. Nothing of the configuration is read.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.stoa import naive as naive_way
from models.stoa.fusion import ClipMemory
from models.stoa.model import StoaModel, TextFeatures
from models.stoa.objectives import (
    Tags,
    alignment_loss,
    masked_language_loss,
    masked_states,
    matching_loss,
    writing_loss,
)
from models.stoa.objects import ClipObjects
from models.stoa.sizes import StoaSizes
from models.stoa.writing import write_greedily

WORDS = (4, 15)
"""Least and most words of a text; with start and end 12 tokens on average, as of MSR-VTT's test captions."""


class Batch(NamedTuple):
    """Random clips and texts for a model."""

    frames: Tensor
    objects: ClipObjects
    ids: Tensor
    mask: Tensor


def make_model(sizes: StoaSizes | None = None) -> StoaModel:
    """Random weights, the same in every process, and no dropout."""
    torch.manual_seed(0)
    return StoaModel(sizes or StoaSizes(dropout=0.0))


def make_batch(sizes: StoaSizes, num_clips: int) -> Batch:
    """Every box and every trajectory is real; texts are padded."""
    frames = torch.randn(num_clips, sizes.num_frames, 3, sizes.image_size, sizes.image_size)
    corners = torch.rand(num_clips, sizes.num_frames, sizes.objects_per_frame, 2) * sizes.image_size / 2
    sides = torch.rand(corners.shape) * sizes.image_size / 2 + 1
    classes = torch.randint(1, sizes.num_trajectories + 1, corners.shape[:-1])
    ids = torch.arange(1, sizes.num_trajectories + 1).expand(num_clips, -1)
    text_ids, mask = make_texts(sizes, num_clips)
    return Batch(frames, ClipObjects(torch.cat([corners, corners + sides], dim=-1), classes, ids), text_ids, mask)


def make_texts(sizes: StoaSizes, num_texts: int) -> tuple[Tensor, Tensor]:
    """Random ids between start and end token, padded with 0."""
    least, most = (min(words, sizes.max_words - 2) for words in WORDS)
    length = torch.randint(least, most + 1, (num_texts,)) + 2
    mask = (torch.arange(sizes.max_words) < length[:, None]).long()
    ids = torch.randint(1, sizes.vocab_size - 2, mask.shape)
    ids[:, 0] = sizes.vocab_size - 2
    ids[torch.arange(num_texts), length - 1] = sizes.vocab_size - 1
    return ids * mask, mask


def make_memory(sizes: StoaSizes, num_clips: int) -> ClipMemory:
    """Clips as the towers would give them."""
    shapes = (sizes.num_frames, sizes.num_trajectories, sizes.num_actions)
    frames, trajectories, actions = (torch.randn(num_clips, count, sizes.embed_dim) for count in shapes)
    return ClipMemory(frames, trajectories, torch.ones(trajectories.shape[:2], dtype=torch.bool), actions)


def prefix_loss_of(model: StoaModel, memory: ClipMemory, ids: Tensor, mask: Tensor, naive: bool) -> Tensor:
    """The loss of either way."""
    first = mask.sum(dim=1) // 2
    if naive:
        return naive_way.prefix_loss(model, memory, ids, mask, first)
    states = model.encode_text(ids, mask).states.detach()
    return writing_loss(model, memory, states, ids, mask, first).mean


def step_losses(model: StoaModel, batch: Batch, naive: bool) -> list[Tensor]:
    """Matching, masked words, writing and alignment, of either way."""
    _, _, ids, mask = batch
    hard = torch.arange(len(ids)).roll(1)
    masked = (torch.arange(ids.shape[1]) % 6 == 2) & (torch.arange(ids.shape[1]) < mask.sum(dim=1, keepdim=True) - 1)
    tags = Tags(torch.arange(ids.shape[1]) % 3 == 1, torch.arange(ids.shape[1]) % 5 == 3)
    tags = Tags(*(tag.expand(len(ids), -1) & mask.bool() for tag in tags))
    texts = model.encode_text(ids, mask)
    texts = texts._replace(states=texts.states.detach())
    if not naive:
        memory = model.encode_video(batch.frames, batch.objects).memory.with_detached_frames()
        return [
            matching_loss(model, memory, texts, hard, hard)[0].mean,
            masked_language_loss(model, memory, ids, mask, masked)[0].mean,
            prefix_loss_of(model, memory, ids, mask, naive=False),
            alignment_loss(memory, texts, tags).loss.mean,
        ]

    memory = naive_way.encode_video(model, batch.frames, batch.objects).with_detached_frames()
    own = torch.arange(len(ids))
    clips, about = torch.stack([own, hard, own], dim=1).flatten(), torch.stack([own, own, hard], dim=1).flatten()
    pairs = texts._replace(states=texts.states[about], mask=texts.mask[about])
    logits = naive_way.match_logits(model, memory.rows(clips), pairs)
    matches = torch.tensor([1, 0, 0]).repeat(len(ids))
    outputs = naive_way.fuse(model, memory, masked_states(model, ids, mask, masked), mask)
    scores = naive_way.vocabulary_logits(model, outputs[:, -ids.shape[1] :])
    return [
        F.cross_entropy(logits, matches),
        F.cross_entropy(scores[masked], ids[masked]),
        prefix_loss_of(model, memory, ids, mask, naive=True),
        # The same work in both ways.
        alignment_loss(memory, texts, tags).loss.mean,
    ]


def captions_of(model: StoaModel, memory: ClipMemory, naive: bool) -> Tensor:
    """Ids (B, 31) of either way."""
    start_id, num_tokens = model.sizes.vocab_size - 2, model.sizes.max_words - 1
    if naive:
        return naive_way.write(model, memory, start_id, num_tokens)
    # No token has this id: no caption ends.
    return write_greedily(model, memory, start_id, -1, num_tokens).ids


@torch.no_grad()
def make_candidates(model: StoaModel, queries: int, most: int) -> tuple[TextFeatures, Tensor, Tensor]:
    """Texts, and of each the likeliest clips, and of each clip the likeliest texts.

    By cosines of random features with noise, under which half of 1000 queries would find their own first, as of a model
    trained for retrieval. Five of six candidate pairs are then candidates in both directions.
    """
    texts = model.encode_text(*make_texts(model.sizes, queries))
    shared = torch.randn(queries, 32)
    of_texts, of_clips = (F.normalize(shared + 0.95 * torch.randn(queries, 32), dim=-1) for _ in range(2))
    similarity = of_texts @ of_clips.T
    return texts, similarity.topk(most, dim=1).indices, similarity.T.topk(most, dim=1).indices
