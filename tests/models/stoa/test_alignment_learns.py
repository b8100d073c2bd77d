"""On a made case that is learnable in seconds, alignment teaches objects their nouns: clips of one object each, then it
points at the right one of three."""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.stoa.model import StoaModel
from models.stoa.objectives import Tags, alignment_loss
from models.stoa.objects import NO_BOX, ClipObjects
from models.stoa.sizes import StoaSizes
from tests.models.stoa.tiny import BOS, EOS, SIZES

KINDS, CLIPS, STEPS = 6, 32, 80
"""Kinds of objects, of which a clip shows some in every frame; each has its own colour and its own noun."""


def made_clips(generator: torch.Generator, colours: Tensor, shown: int) -> tuple[Tensor, ClipObjects, Tensor, Tensor]:
    """Frames, boxes, ids, and the kind that each token names, 0 for none (B, S).

    Objects are squares of 4 to 6 pixels in corners drawn anew for each clip; texts name them in an order of its own.
    """
    frames = torch.zeros(CLIPS, 3, 3, 16, 16)
    boxes = torch.full((CLIPS, 3, 3, 4), NO_BOX)
    kinds = torch.rand(CLIPS, KINDS, generator=generator).argsort(dim=1)[:, :shown] + 1
    corners = torch.tensor([(0, 0), (9, 0), (0, 9), (9, 9)])
    for clip in range(CLIPS):
        places = corners[torch.randperm(4, generator=generator)[:shown]]
        for slot, (kind, (left, top)) in enumerate(zip(kinds[clip].tolist(), places.tolist(), strict=True)):
            side = int(torch.randint(4, 7, (), generator=generator))
            frames[clip, :, :, top : top + side, left : left + side] = colours[kind - 1][:, None, None]
            boxes[clip, :, slot] = torch.tensor([left, top, left + side, top + side], dtype=torch.float32)
    classes = F.pad(kinds, (0, 3 - shown))[:, None].expand(-1, 3, -1)
    trajectory_ids = F.pad(kinds, (0, 4 - shown))

    order = torch.rand(CLIPS, shown, generator=generator).argsort(dim=1)
    named = kinds.gather(1, order)
    fillers = torch.full((CLIPS, 1), KINDS + 1)
    ends = torch.tensor([BOS, EOS]).expand(CLIPS, -1)
    ids = torch.cat([ends[:, :1], named, fillers, ends[:, 1:]], dim=1)
    wanted = torch.cat([torch.zeros_like(fillers), named, torch.zeros(CLIPS, 2, dtype=torch.int64)], dim=1)
    return frames, ClipObjects(boxes, classes, trajectory_ids), ids, wanted


def share_right(model: StoaModel, generator: torch.Generator, colours: Tensor) -> float:
    """How many nouns point at the trajectory of their kind, in new clips."""
    frames, objects, ids, wanted = made_clips(generator, colours, shown=3)
    with torch.no_grad():
        memory = model.encode_video(frames, objects).memory
        states = model.encode_text(ids, torch.ones_like(ids)).states
    assert memory.trajectories is not None and memory.trajectory_mask is not None
    scores = torch.einsum("B N E, B S E -> B S N", memory.trajectories, states)
    best = scores.masked_fill(~memory.trajectory_mask[:, None], -torch.inf).argmax(dim=-1)
    pointed = objects.trajectory_ids.gather(1, best)
    return float((pointed == wanted)[wanted > 0].float().mean())


def test_objects_learn_their_nouns() -> None:
    torch.manual_seed(0)
    # Texts stay as they are: alignment gives them no gradient.
    model = StoaModel(StoaSizes(**{**SIZES, "vision_width": 32, "embed_dim": 16, "text_width": 16})).train()
    torch.nn.init.normal_(model.text.token_embedding.weight)
    generator = torch.Generator().manual_seed(1)
    colours = torch.randn(KINDS, 3, generator=generator).sign() * torch.rand(KINDS, 3, generator=generator) * 2
    before = share_right(model, generator, colours)

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        frames, objects, ids, wanted = made_clips(generator, colours, shown=1)
        memory = model.encode_video(frames, objects).memory
        texts = model.encode_text(ids, torch.ones_like(ids))
        tags = Tags(wanted > 0, torch.zeros_like(wanted, dtype=torch.bool))
        found = alignment_loss(memory, texts, tags, end_is_candidate=False)
        optimizer.zero_grad()
        found.loss.mean.backward()
        optimizer.step()
    assert before < 0.6
    assert share_right(model, generator, colours) > 0.75
