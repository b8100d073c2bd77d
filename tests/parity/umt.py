"""vid-TLDR's cases: UMT's encoder and text towers, reduction, retrieval, answers, choices, training steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from configs.schedule import num_leaving
from models.parts import aggregation
from models.parts.aggregation import best_match, follow, merge, plan_bipartite
from models.parts.bert import Predictions
from models.parts.losses import contrastive, similarities
from models.parts.losses_pretraining import feature_distance, masked_word_loss, matching_pairs
from models.parts.sharpness import negative_entropy, saliency
from models.umt.text import SplitBert
from models.umt.weights import to_published
from tasks.metrics.retrieval import best_ranks, shortlist
from tasks.reranking_rules import by_logit, by_share_of_options
from tests.parity.cases import Case, Compute, Meta, Tensors, outputs_to_match, weights_of
from tests.parity.umt_models import build_model, reducing_blocks, text_config, video_encoder

RECALLS = (1, 5, 10)


@contextmanager
def saliencies() -> Iterator[list[Tensor]]:
    """The saliency (B, N) of every reducing block, in order."""
    found: list[Tensor] = []

    def noted(sharpness: Tensor) -> Tensor:
        found.append(saliency(sharpness))
        return found[-1]

    aggregation.saliency = noted
    try:
        yield found
    finally:
        aggregation.saliency = saliency


@torch.no_grad()
def check_encoder(tensors: Tensors, meta: Meta) -> Tensors:
    """Tokens and pooled vectors of a video; sizes and saliencies where it is reduced."""
    encoder = video_encoder(meta)
    encoder.load_state_dict(weights_of(tensors, "state_dict."))
    video = tensors["video"]
    with saliencies() as found:
        encoded = encoder(video)
    outputs = {"tokens": encoded.tokens, "pooled": encoder.pool(encoded.tokens, video.shape[1])}
    blocks = reducing_blocks(encoder, video.shape[1] * encoder.num_patches)
    outputs |= {f"saliency.{block}": weight.unsqueeze(-1) for block, weight in zip(blocks, found, strict=True)}
    return outputs | {"size": encoded.size.unsqueeze(-1)}


@torch.no_grad()
def check_merge(tensors: Tensors, meta: Meta) -> Tensors:
    """Plan and merge alone, given the attention map."""
    tokens = tensors["tokens_before"]
    batch, num_tokens, _ = tokens.shape
    size = tensors["size_before"].squeeze(-1) if "size_before" in tensors else tokens.new_ones(batch, num_tokens)
    weight = saliency(negative_entropy(tensors["attention"]))

    positions = torch.arange(num_tokens)
    score, match = best_match(tokens[:, ::2], tokens[:, 1::2])
    r = num_leaving(meta["r"], num_tokens, protected=0)
    plan = plan_bipartite(score, match, r, positions[::2], positions[1::2], "reference")
    origins = follow(positions.expand(batch, 1, -1), plan, num_tokens, 1)
    merged, merged_size = merge(tokens, size, plan._replace(weight=weight.gather(-1, plan.source)))
    return {
        "merged_tokens": merged,
        "merged_size": merged_size.unsqueeze(-1),
        "saliency": weight.unsqueeze(-1),
        "landed": origins.squeeze(1),
    }


@torch.no_grad()
def check_text(tensors: Tensors, meta: Meta) -> Tensors:
    """Hidden states of a text alone, fused with a video, and of both in one go; logits of masked words."""
    text = text_config(meta["bert"])
    bert = SplitBert(text, text.depth, text.fusion_layer, meta["bert"]["encoder_width"]).eval()
    weights = weights_of(tensors, "state_dict.")
    if meta["masked_lm_head"]:
        bert.load_state_dict(under("bert.", weights))
    else:
        bert.load_state_dict(weights)

    ids, mask, memory = tensors["input_ids"], tensors["attention_mask"], bert.project(tensors["video_tokens"])
    states = bert.read(ids, mask)
    fused = bert.fuse(states, mask, memory)
    outputs = {
        "text_hidden": states,
        "fusion_hidden": fused,
        "multi_modal_hidden": fused,
        "fusion_hidden_masked": bert.fuse(states, mask, memory, tensors["video_mask"]),
    }
    if meta["masked_lm_head"]:
        head = Predictions(text, bert.embeddings.word_embeddings)
        head.load_state_dict(under("cls.predictions.", weights))
        logits = head(bert.fuse(bert.read(tensors["masked_ids"], mask), mask, memory))
        outputs |= {"mlm_logits": logits, "loss_mlm": masked_word_loss(logits, tensors["labels"])}
    return outputs


def under(prefix: str, weights: Tensors) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


@torch.no_grad()
def check_retrieval(tensors: Tensors, meta: Meta) -> Tensors:
    """Features, similarities, matching logits of the best of each row, and the metrics of both."""
    model = build_model(tensors, meta, "retrieval")
    video, mask = model.encode_video(tensors["video"]), tensors["attention_mask"]
    text = model.encode_text(tensors["input_ids"], mask)
    pooled = model.vision_encoder.pool(video.tokens, tensors["video"].shape[1])
    memory = model.project(video.tokens)

    def logits(pairs: Tensor) -> Tensor:
        return model.match(memory, text.states[pairs[:, 1]], mask[pairs[:, 1]], about_P=pairs[:, 0])

    similarity = video.embedding @ text.embedding.T
    relevant = tensors["relevant"].bool().numpy()
    scores = {}
    for name, rows in (("i2t", similarity.numpy()), ("t2i", similarity.T.numpy())):
        chosen = shortlist(rows, meta["k_test"])
        query = np.arange(len(rows)).repeat(chosen.shape[1])
        pairs = np.stack([query, chosen.ravel()] if name == "i2t" else [chosen.ravel(), query], axis=1)
        matched = logits(torch.from_numpy(pairs).long())[:, 1].numpy().reshape(chosen.shape)
        scores[name] = by_logit(chosen, matched, rows.shape[1])
    return {
        "vision_tokens": video.tokens,
        "vision_pooled": pooled,
        "vision_proj": model.vision_proj(pooled),
        "text_hidden": text.states,
        "text_proj": model.text_proj(text.states[:, 0]),
        "similarity": similarity,
        "itm_logits": logits(tensors["pairs"]),
        "scores_i2t": torch.from_numpy(scores["i2t"]),
        "scores_t2i": torch.from_numpy(scores["t2i"]),
        "metrics_test": metrics(scores["i2t"], scores["t2i"], relevant),
        "metrics_test_emb": metrics(similarity.numpy(), similarity.T.numpy(), relevant),
    }


def metrics(video_to_text: np.ndarray, text_to_video: np.ndarray, relevant: np.ndarray) -> Tensor:
    """Recalls and their mean of both directions, and the mean of these, rounded as the reference does."""
    found: list[float] = []
    for scores, own in ((video_to_text, relevant), (text_to_video, relevant.T)):
        ranks = best_ranks(scores, own)
        recalls = [100 * float((ranks <= most).mean()) for most in RECALLS]
        found += [*recalls, sum(recalls) / len(recalls)]
    return torch.tensor([round(value, 2) for value in (*found, (found[3] + found[7]) / 2)])


def check_train_step(tensors: Tensors, meta: Meta) -> Tensors:
    """One forward and backward of training with the negatives, and hidden words, that the reference drew."""
    use: Literal["retrieval", "pretraining"] = "pretraining" if meta["masked_lm_head"] else "retrieval"
    model = build_model(tensors, meta, use)
    model.clamp_temperature()
    ids, mask = tensors["input_ids"], tensors["attention_mask"]
    video, text = model.encode_video(tensors["video"]), model.encode_text(ids, mask)

    positives = tensors["idx"][:, None] == tensors["idx"][None]
    similarity = similarities(video.embedding, text.embedding) / model.temp
    both = [contrastive(one, one.detach(), positives, alpha=0.0).mean() for one in (similarity, similarity.T)]
    losses = {"vtc": (both[0] + both[1]) / 2}

    memory = model.project(video.tokens)
    pairs = matching_pairs(tensors["negative_video"], tensors["negative_text"])
    logits = model.match(memory, text.states[pairs.text], mask[pairs.text], about_P=pairs.video)
    losses["vtm"] = F.cross_entropy(logits, pairs.label)
    if use == "pretraining":
        losses["mlm"] = masked_word_loss(model.word_logits(memory, tensors["masked_ids"], mask), tensors["labels"])

    loss = sum(meta["loss_weight"][name] * value for name, value in losses.items())
    loss.backward()
    own = {name: parameter.grad for name, parameter in model.named_parameters(remove_duplicate=False)}
    gradients = to_published(own, "pre-training" if use == "pretraining" else "retrieval")
    return {
        **{f"loss_{name}": value.detach() for name, value in losses.items()},
        **{f"grad.{name}": gradient for name, gradient in gradients.items()},
        "loss": loss.detach(),
        "after.temp": model.temp.detach(),
    }


@torch.no_grad()
def check_qa(tensors: Tensors, meta: Meta) -> Tensors:
    """The best answers of a list for each question, and the weighted training loss."""
    model = build_model(tensors, meta, "answers")
    mask, per_question = tensors["question_mask"], tensors["answers_per_question"]
    states = model.ground(model.video_tokens(tensors["video"]), tensors["question_ids"], mask)
    ranked = model.rank(states, mask, tensors["answer_ids"], tensors["answer_mask"], meta["k_test"])

    asked = torch.arange(len(per_question)).repeat_interleave(per_question)
    answers = slice(0, len(asked))
    losses = model.answer_losses(
        states[asked], mask[asked], tensors["answer_ids"][answers], tensors["answer_mask"][answers]
    )
    return {
        "question_hidden": states,
        "topk_ids": ranked.rows,
        "topk_probs": ranked.probability,
        "best_answer": ranked.rows[:, 0],
        "train_loss": (tensors["answer_weights"] * losses).sum() / len(per_question),
    }


@torch.no_grad()
def check_choice(tensors: Tensors, meta: Meta) -> Tensors:
    """Scores of the options of each question, which stand side by side."""
    model = build_model(tensors, meta, "retrieval")
    options = meta["options"]
    video = model.encode_video(tensors["video"])
    text = model.encode_text(tensors["input_ids"], tensors["attention_mask"])
    cosine = (video.embedding.unsqueeze(1) * text.embedding.unflatten(0, (-1, options))).sum(dim=-1)
    logits = model.match(model.project(video.tokens), text.states, text.mask).unflatten(0, (-1, options))
    scores = by_share_of_options(cosine / model.temp, logits)
    choice = scores.argmax(dim=1)
    accuracy = 100 * (choice == tensors["answer"]).float().mean()
    return {"choice_scores": scores, "choice": choice, "accuracy": accuracy}


@torch.no_grad()
def check_distill(tensors: Tensors, meta: Meta) -> Tensors:
    """What the last blocks make of the visible tokens alone, and how far that is from the teacher."""
    layers, video = meta["clip_layers"], tensors["video"]
    encoder = video_encoder(meta, teacher_layers=layers)
    encoder.load_state_dict(weights_of(tensors, "state_dict."))
    visible = ~tensors["mask"].bool()
    keep = visible.nonzero()[:, 1].view(len(visible), -1)
    encoded = encoder(video, keep, num_returned=layers)
    student = encoder.student(encoded, video.shape[1], keep)
    return {
        "tokens": encoded.tokens,
        "pooled": encoder.pool(encoded.tokens, video.shape[1]),
        "student": student,
        "loss_uta": feature_distance(student, tensors["teacher"]),
    }


KINDS: dict[str, Compute] = {
    "umt_encoder": check_encoder,
    "umt_merge": check_merge,
    "umt_text": check_text,
    "umt_retrieval": check_retrieval,
    "umt_train_step": check_train_step,
    "umt_qa": check_qa,
    "umt_choice": check_choice,
    "umt_distill": check_distill,
}


def expected_outputs(case: Case) -> set[str]:
    """Every tensor of a case that is neither weight nor input."""
    return outputs_to_match(case.tensors, set(case.meta["inputs"]), ("state_dict.",))
