"""STOA-VLP's cases of losses, with the gradients they give, and of what is written and answered.

Outputs named `fixed.*` come from the default, repaired form; the others from the reference's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.stoa.model import StoaModel
from models.stoa.objectives import (
    Tags,
    alignment_loss,
    answer_loss,
    contrast,
    contrastive_loss,
    masked_language_loss,
    masked_states,
    matching_loss,
    writing_loss,
)
from models.stoa.weights import published_name
from models.stoa.writing import write_greedily
from tests.parity.cases import Meta, Tensors
from tests.parity.stoa_branches import build_model, encode, fusion_input, masked_out, objects_of

FIXED = "fixed."


def gradient_norms(model: StoaModel, loss: Tensor, name: str) -> Tensors:
    """`grad_norm_NAME.*` by published names, of the parameters that the loss reaches."""
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {
        f"grad_norm_{name}.{published_name(parameter)}": gradient.norm()
        for parameter, gradient in zip(parameters, gradients, strict=True)
        if gradient is not None
    }


@torch.no_grad()
def check_vtm(tensors: Tensors, meta: Meta) -> Tensors:
    """Matching with given hard negatives."""
    model = build_model(tensors, meta)
    video, texts, memory = encode(model, tensors, detach=True)
    hard = tensors["hard_video"], tensors["hard_text"]
    loss, logits = matching_loss(model, memory, texts, *hard, reference_form=True)
    fixed_loss, fixed_logits = matching_loss(model, memory, texts, *hard)

    # The vectors that are matched, for the same pairs.
    own = torch.arange(len(hard[0]))
    videos = torch.stack([own, hard[0], own], dim=1).flatten()
    about = torch.stack([own, own, hard[1]], dim=1).flatten()
    placed = model.fusion.place_text(texts.states[about], texts.mask[about])
    separator, end = model.fusion.read_pair(memory.rows(videos), placed, texts.mask[about])
    return {
        "similarity": contrast(model, video, texts),
        "v_sep": separator,
        "t_sep": end,
        "logits": logits,
        "targets": torch.tensor([1, 0, 0]).repeat(len(own)),
        "loss_vtm": loss.mean,
        "fixed.logits": fixed_logits,
        "fixed.loss_vtm": fixed_loss.mean,
    }


@torch.no_grad()
def check_mlm(tensors: Tensors, meta: Meta) -> Tensors:
    """Masked words with a given mask."""
    model = build_model(tensors, meta)
    _, _, memory = encode(model, tensors, detach=True)
    ids, mask, masked = tensors["input_ids"], tensors["attention_mask"], tensors["masked"].bool()
    loss, scores = masked_language_loss(model, memory, ids, mask, masked)
    placed = masked_states(model, ids, mask, masked)
    return {
        "fusion_input": fusion_input(model, memory, placed, mask),
        "scores": scores,
        "targets": ids[masked],
        "loss_mlm": loss.mean,
    }


@torch.no_grad()
def check_plm(tensors: Tensors, meta: Meta) -> Tensors:
    """Writing the end of a text, all tokens in one pass."""
    model = build_model(tensors, meta)
    _, texts, memory = encode(model, tensors, detach=True)
    ids, mask, first = tensors["input_ids"], tensors["attention_mask"], tensors["suffix_start"]
    found: Tensors = {}
    for prefix, positioned in (("", False), (FIXED, True)):
        hidden = model.fusion.write(memory, texts.states, positioned)
        found[f"{prefix}scores"] = masked_out(model.vocabulary_logits(hidden), mask[:, 1:])
        loss = writing_loss(model, memory, texts.states, ids, mask, first, positioned)
        found[f"{prefix}loss_plm"] = loss.mean
    slots = torch.arange(1, ids.shape[1])
    is_written = mask[:, 1:].bool() & (slots >= first[:, None])
    return {**found, "targets": ids[:, 1:][is_written]}


@torch.no_grad()
def check_match(tensors: Tensors, meta: Meta) -> Tensors:
    """Assignments of trajectories to nouns and of actions to verbs."""
    model = build_model(tensors, meta)
    _, texts, memory = encode(model, tensors, detach=True)
    tags = Tags(tensors["noun"].bool(), tensors["verb"].bool())
    found: Tensors = {}
    for prefix, reference_form in (("", True), (FIXED, False)):
        alignment = alignment_loss(memory, texts, tags, reference_form)
        assert alignment.objects is not None and alignment.actions is not None
        found[f"{prefix}object_match"] = alignment.objects
        found[f"{prefix}action_match"] = alignment.actions
        found[f"{prefix}num_pairs"] = (alignment.objects >= 0).sum() + (alignment.actions >= 0).sum()
        found[f"{prefix}loss_match"] = alignment.loss.mean
    assert memory.trajectories is not None and memory.actions is not None
    return {
        **found,
        "trajectories": memory.trajectories,
        "actions": memory.actions,
        "text_tokens": masked_out(texts.states, tensors["attention_mask"]),
    }


def check_total(tensors: Tensors, meta: Meta) -> Tensors:
    """A whole pre-training forward, and which parameters its losses reach."""
    model = build_model(tensors, meta)
    video, texts, memory = encode(model, tensors, detach=True)
    ids, mask, masked = tensors["input_ids"], tensors["attention_mask"], tensors["masked"].bool()
    tags = Tags(tensors["noun"].bool(), tensors["verb"].bool())

    found: Tensors = {}
    for prefix, reference_form in (("", True), (FIXED, False)):
        hard = tensors["hard_video"], tensors["hard_text"]
        found[f"{prefix}loss_vtm"] = matching_loss(model, memory, texts, *hard, reference_form)[0].mean
        loss = writing_loss(model, memory, texts.states, ids, mask, tensors["suffix_start"], not reference_form)
        found[f"{prefix}loss_plm"] = loss.mean
        found[f"{prefix}loss_match"] = alignment_loss(memory, texts, tags, reference_form).loss.mean
    found["loss_mlm"] = masked_language_loss(model, memory, ids, mask, masked)[0].mean

    # The reference's frames get no gradient from the contrastive loss either.
    detached = video._replace(embedding=video.embedding.detach())
    found["loss_vtc"] = contrastive_loss(contrast(model, detached, texts))
    found["total_later"] = sum((found[f"loss_{name}"] for name in ("vtm", "mlm", "plm", "match")), torch.zeros(()))
    found["total_first_epoch"] = found["total_later"] + found["loss_vtc"]
    return _finished(model, found, {"later": "total_later", "vtc": "loss_vtc"})


def check_retrieval_loss(tensors: Tensors, meta: Meta) -> Tensors:
    """Fine-tuning for retrieval."""
    model = build_model(tensors, meta)
    video, texts, _ = encode(model, tensors, detach=False)
    detached = texts._replace(states=texts.states.detach())
    memory = video.memory.with_detached_frames()
    hard = tensors["hard_video"], tensors["hard_text"]
    loss, logits = matching_loss(model, memory, detached, *hard, reference_form=True)
    fixed_loss, fixed_logits = matching_loss(model, memory, detached, *hard)
    similarity = contrast(model, video, texts)
    found = {
        "similarity": similarity,
        "logits": logits,
        "targets": torch.tensor([1, 0, 0]).repeat(len(similarity)),
        "loss_vtm": loss.mean,
        "loss_vtc": contrastive_loss(similarity),
        "fixed.logits": fixed_logits,
        "fixed.loss_vtm": fixed_loss.mean,
    }
    found["total"] = found["loss_vtm"] + found["loss_vtc"]
    return _finished(model, found, {"vtm": "loss_vtm", "vtc": "loss_vtc"})


def check_caption_loss(tensors: Tensors, meta: Meta) -> Tensors:
    """Fine-tuning for captions: every token after the first is written."""
    model = build_model(tensors, meta)
    video, texts, memory = encode(model, tensors, detach=False)
    ids, mask = tensors["input_ids"], tensors["attention_mask"]
    first = torch.ones(len(ids), dtype=torch.int64)
    is_written = mask[:, 1:].bool()
    scores = model.vocabulary_logits(model.fusion.write(memory, texts.states))[is_written]
    found = {
        "token_scores": scores,
        "targets": ids[:, 1:][is_written],
        "loss_caption": writing_loss(model, memory, texts.states, ids, mask, first).mean,
        "loss_vtc": contrastive_loss(contrast(model, video, texts)),
    }
    found["total_msrvtt"] = found["loss_caption"] + found["loss_vtc"]
    return _finished(model, found, {"caption": "loss_caption"})


@torch.no_grad()
def check_caption_greedy(tensors: Tensors, meta: Meta) -> Tensors:
    """Captions written greedily, with a cache."""
    model = build_model(tensors, meta)
    memory = model.encode_video(tensors["frames"], objects_of(tensors)).memory
    num_steps = meta["max_words"] - 1
    written = write_greedily(model, memory, meta["bos_id"], meta["eos_id"], num_steps)

    is_end = written.ids == meta["eos_id"]
    lengths = torch.where(is_end.any(dim=1), is_end.int().argmax(dim=1) + 1, num_steps)
    is_written = torch.arange(written.ids.shape[1]) < lengths[:, None]
    missing = num_steps - written.ids.shape[1]
    return {
        "generated_ids": F.pad(written.ids, (0, missing)),
        "lengths": lengths,
        "log_probs": F.pad(masked_out(written.log_probs, is_written), (0, 0, 0, missing)),
    }


def check_qa(tensors: Tensors, meta: Meta) -> Tensors:
    """Answers by their first token."""
    model = build_model(tensors, meta)
    video = model.encode_video(tensors["frames"], objects_of(tensors))
    texts = model.encode_text(tensors["question_ids"], tensors["question_mask"])
    loss, scores = answer_loss(model, video.memory, texts, tensors["answer_ids"])
    predicted = scores.argmax(dim=-1)
    found = {
        "scores": scores,
        "predicted": predicted,
        "num_correct": (predicted == tensors["answer_ids"]).sum(),
        "loss_qa": loss.mean,
    }
    return _finished(model, found, {"qa": "loss_qa"})


def _finished(model: StoaModel, found: Tensors, losses: dict[str, str]) -> Tensors:
    """All values, with the gradient norms of some losses by the name they are stored under."""
    for name, loss in losses.items():
        found = found | gradient_norms(model, found[loss], name)
    return {name: tensor.detach() for name, tensor in found.items()}
