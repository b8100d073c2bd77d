"""STOA-VLP the way its reference does it, in plain lines on our weights: what `benchmarks.stoa` compares with.

The reference runs the fusion encoder and the text tower once for each token that is written, multiplies the
vocabulary's table with its projection in every call, runs a copy of the objects for each class, an MLP on every sample
of RoIAlign, and all tokens of every last block. Dropout is left out on both sides.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from models.parts.clip.blocks import ClipBlock
from models.stoa.blocks import blocks_of
from models.stoa.fusion import ClipMemory
from models.stoa.model import StoaModel, TextFeatures
from models.stoa.objects import ClipObjects


def block_over(block: ClipBlock, tokens_BND: Tensor, hidden_BNN: Tensor | None = None) -> Tensor:
    """A block by torch's multi-head attention; `hidden` is True where a key may not be seen."""
    attention, heads = block.attn, block.attn.heads
    normed = block.ln_1(tokens_BND).transpose(0, 1)
    mask = None if hidden_BNN is None else hidden_BNN.repeat_interleave(heads, dim=0)
    attended, _ = F.multi_head_attention_forward(
        normed, normed, normed, normed.shape[-1], heads, attention.in_proj_weight, attention.in_proj_bias, None, None,
        False, 0.0, attention.out_proj.weight, attention.out_proj.bias, need_weights=False, attn_mask=mask,
    )  # fmt: skip
    tokens = tokens_BND + attended.transpose(0, 1)
    inner = block.mlp.c_fc(block.ln_2(tokens))
    return tokens + block.mlp.c_proj(inner * torch.sigmoid(1.702 * inner))


def text_states(model: StoaModel, ids: Tensor) -> Tensor:
    """The text tower over all slots, padding too."""
    tower = model.text
    hidden = tower.token_embedding(ids) + tower.positional_embedding[: ids.shape[1]]
    length = ids.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1).expand(len(ids), -1, -1)
    for block in blocks_of(tower.transformer):
        hidden = block_over(block, hidden, later)
    return tower.ln_final(hidden) @ tower.text_projection


def vocabulary_logits(model: StoaModel, hidden: Tensor) -> Tensor:
    """Scores of all tokens, by the projected table."""
    table = model.fusion_proj @ model.text.token_embedding.weight.T
    return hidden @ table + model.fusion_logit_bias


def fuse(model: StoaModel, memory: ClipMemory, text: Tensor, is_text: Tensor, causal: bool = False) -> Tensor:
    """The fusion encoder over all slots; positions are in the text already."""
    prefix, prefix_mask = model.fusion.prefix(memory)
    tokens = torch.cat([prefix, text], dim=1)
    num_prefix, length = prefix.shape[1], tokens.shape[1]
    is_key = torch.cat([prefix_mask, is_text.bool()], dim=1)
    hidden = ~is_key[:, None, :].expand(-1, length, -1)
    if causal:
        later = torch.ones(length, length, dtype=torch.bool, device=text.device).triu(1)
        later[:num_prefix, :num_prefix] = False
        hidden = hidden | later
    for block in blocks_of(model.fusion.transformer):
        tokens = block_over(block, tokens, hidden)
    return tokens


def step_states(model: StoaModel, memory: ClipMemory, ids: Tensor, step: int, detach: bool) -> Tensor:
    """What predicts token `step` + 1, with the text up to it in its slots and positions alone behind it."""
    states = text_states(model, ids)
    states = states.detach() if detach else states
    is_given = (torch.arange(ids.shape[1], device=ids.device) <= step)[:, None]
    text = torch.where(is_given, states, 0.0) + model.fusion.text_positions(ids.shape[1])
    outputs = fuse(model, memory, text, torch.ones_like(ids), causal=True)
    return outputs[:, -ids.shape[1] + step + 1]


def prefix_loss(model: StoaModel, memory: ClipMemory, ids: Tensor, mask: Tensor, first: Tensor) -> Tensor:
    """Prefix language modelling, a pass a token."""
    losses = []
    for step in range(ids.shape[1] - 1):
        logits = vocabulary_logits(model, step_states(model, memory, ids, step, detach=True))
        is_written = mask[:, step + 1].bool() & (step + 1 >= first)
        losses.append(F.cross_entropy(logits, ids[:, step + 1], reduction="none") * is_written)
    slots = torch.arange(1, ids.shape[1], device=ids.device)
    count = (mask[:, 1:].bool() & (slots >= first[:, None])).sum()
    return torch.stack(losses).sum() / count


@torch.no_grad()
def write(model: StoaModel, memory: ClipMemory, start_id: int, max_tokens: int) -> Tensor:
    """Greedy captions (B, `max_tokens`) that never end, without a cache."""
    ids = torch.zeros(len(memory.frames), max_tokens + 1, dtype=torch.int64)
    ids[:, 0] = start_id
    for step in range(max_tokens):
        logits = vocabulary_logits(model, step_states(model, memory, ids, step, detach=True))
        ids[:, step + 1] = logits.argmax(dim=-1)
    return ids[:, 1:]


def match_logits(model: StoaModel, memory: ClipMemory, texts: TextFeatures) -> Tensor:
    """Logits of pairs, from all slots of all of their tokens."""
    placed = model.fusion.place_text(texts.states, texts.mask)
    outputs = fuse(model, memory, placed, texts.mask)
    end = outputs.shape[1] - texts.mask.shape[1] + texts.mask.sum(dim=1) - 1
    return model.match_logits(outputs[:, memory.frames.shape[1]], outputs[torch.arange(len(end)), end])


@torch.no_grad()
def match_candidates(
    model: StoaModel, memory: ClipMemory, texts: TextFeatures, t2v: Tensor, v2t: Tensor
) -> tuple[Tensor, Tensor]:
    """Each query with all of its candidates, both directions apart."""
    found = []
    for is_text, lists in ((True, t2v), (False, v2t)):
        rows = []
        for query, candidates in enumerate(lists):
            own = torch.full_like(candidates, query)
            clips, about = (candidates, own) if is_text else (own, candidates)
            pairs = texts._replace(states=texts.states[about], mask=texts.mask[about])
            rows.append(match_logits(model, memory.rows(clips), pairs).softmax(dim=-1)[:, 1])
        found.append(torch.stack(rows))
    return found[0], found[1]


def encode_video(model: StoaModel, frames: Tensor, objects: ClipObjects) -> ClipMemory:
    """All branches of a clip: every token of the last block, every box, a copy of the objects a class."""
    sizes, tower = model.sizes, model.visual
    num_frames = frames.shape[1]
    tokens = tower.embed(frames.flatten(0, 1))
    *apart, first_joint, last = blocks_of(tower.transformer)
    for block in apart:
        tokens = block_over(block, tokens)
    tap = tokens.detach().unflatten(0, (-1, num_frames))
    joint = block_over(first_joint, tokens.unflatten(0, (-1, num_frames)).flatten(1, 2))
    per_frame = joint.unflatten(1, (num_frames, -1))
    object_tokens = _object_tokens(model, per_frame, objects) + model.object_frame_pos_emb[:num_frames, None]
    output = tower.ln_post(block_over(last, joint)) @ tower.proj
    features = output.unflatten(1, (num_frames, -1))[:, :, 0]

    trajectories = _trajectories(model, object_tokens.flatten(1, 2), objects)
    actions = model.object_act_fusion(model.object_action, tap, object_tokens, objects.padding)
    assert sizes.joint_depth == 2
    return ClipMemory(features, trajectories, objects.trajectory_ids != 0, actions)


def _object_tokens(model: StoaModel, tokens_BTND: Tensor, objects: ClipObjects) -> Tensor:
    encoder, sizes = model.visual.object_encoder, model.sizes
    grid = sizes.image_size // sizes.patch_size
    maps = tokens_BTND[:, :, 1:].flatten(0, 1).transpose(1, 2).unflatten(2, (grid, grid))
    boxes = objects.boxes.flatten(0, 1)
    regions = roi_align(maps, list(boxes), grid, 1 / sizes.patch_size, aligned=True)
    samples = encoder.patch_to_d(regions.flatten(2).transpose(1, 2))
    appearance = samples.amax(dim=1).view(*objects.classes.shape, -1)
    coordinates = encoder.c_coord_to_feature(objects.boxes / sizes.image_size)
    return appearance + encoder.box_categories[: tokens_BTND.shape[1]] + coordinates


def _trajectories(model: StoaModel, tokens_BND: Tensor, objects: ClipObjects) -> Tensor:
    encoder = model.object_fusion
    (block,) = blocks_of(encoder.transformer)
    ids = objects.trajectory_ids
    others = ids[:, :, None] != objects.classes.flatten(1)[:, None]
    copies = tokens_BND[:, None].expand(-1, ids.shape[1], -1, -1)
    class_token = model.object_cls_embedding.expand(*copies.shape[:2], 1, -1)
    sequences = torch.cat([class_token, copies], dim=2).flatten(0, 1)
    hidden = F.pad(others, (1, 0)).flatten(0, 1)[:, None].expand(-1, sequences.shape[1], -1)
    first = block_over(block, sequences, hidden)[:, 0]
    return (encoder.ln_post(first) @ encoder.proj).unflatten(0, ids.shape)
