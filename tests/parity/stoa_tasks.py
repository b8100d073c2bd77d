"""STOA-VLP's cases without a whole forward: detections, retrieval with reranking, multiple choice, the optimizer."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.objects.detections import choose_boxes, confidence_sums
from datasets.objects.vinvl import detections, read_file
from engine.bert_adam import BertAdam
from models.stoa.fusion import ClipMemory
from models.stoa.model import StoaModel, TextFeatures, pool_frames
from models.stoa.objectives import candidate_probabilities, contrast, contrastive_loss
from tasks.metrics.grouped import caption_ranks, lower_median, video_ranks
from tasks.metrics.retrieval import best_ranks, recalls, rerank
from tasks.reranking_rules import by_scaled_probability
from tests.parity.cases import Meta, Tensors


def check_detections(tensors: Tensors, meta: Meta) -> Tensors:
    """A detector's file to boxes, their classes, and trajectories."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detections.json"
        path.write_bytes(tensors["detections_json"].numpy().tobytes())
        frames = read_file(path)
    found = detections(frames, meta["label_to_idx"], "xyxy")
    per_frame = meta["objects_per_frame"]
    chosen = choose_boxes(found, per_frame)
    sums = confidence_sums(found, per_frame)
    return {
        "boxes": torch.from_numpy(chosen.boxes),
        "box_classes": torch.from_numpy(chosen.classes),
        "trajectory_ids": torch.from_numpy(chosen.trajectory_ids),
        "confidence_sums": torch.tensor([sums.get(int(label), 0.0) for label in chosen.trajectory_ids]),
    }


@torch.no_grad()
def check_match(model: StoaModel, tensors: Tensors, meta: Meta) -> Tensors:
    """The probability that each query's candidates match, in both directions and both forms."""
    video, objects, mask = tensors["video_tokens"], tensors["object_tokens"], tensors["object_mask"].bool()
    num_frames, num_trajectories = meta["num_frames"], meta["num_trajectories"]
    memory = ClipMemory(
        video[:, :num_frames],
        objects[:, :num_trajectories],
        mask[:, :num_trajectories],
        objects[:, num_trajectories:],
    )
    texts = TextFeatures(tensors["text_tokens"], tensors["attention_mask"].bool(), torch.empty(0))
    found: Tensors = {}
    for prefix, reference_form in (("", True), ("fixed.", False)):
        for direction in ("t2v", "v2t"):
            rows = []
            for query, candidates in enumerate(tensors[f"{direction}_candidates"]):
                queries = torch.full_like(candidates, query)
                videos, about = (candidates, queries) if direction == "t2v" else (queries, candidates)
                rows.append(candidate_probabilities(model, memory, texts, videos, about, reference_form))
            found[f"{prefix}{direction}_match"] = torch.stack(rows)
    return found


def check_rerank(tensors: Tensors, meta: Meta) -> Tensors:
    """Candidates, their scores, and the ranks of the true items."""
    found: Tensors = {}
    most = meta["num_candidates"]
    for direction in ("t2v", "v2t"):
        similarity = tensors["similarity"].numpy()
        similarity = similarity if direction == "t2v" else similarity.T
        candidates = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
        chosen_similarity = np.take_along_axis(similarity, candidates, axis=1)
        scores = by_scaled_probability(chosen_similarity, tensors[f"{direction}_match"].numpy())

        is_chosen, rescored = np.zeros(similarity.shape, dtype=bool), np.full(similarity.shape, np.nan)
        np.put_along_axis(is_chosen, candidates, True, axis=1)
        np.put_along_axis(rescored, candidates, scores, axis=1)
        # Cosines are what `rerank` orders the others by; the scale changes no order.
        cosine = similarity / np.abs(similarity).max()
        ranks = best_ranks(rerank(cosine, rescored, is_chosen), np.eye(len(similarity), dtype=bool))
        found[f"{direction}_candidates"] = torch.from_numpy(candidates)
        found[f"{direction}_scores"] = torch.from_numpy(scores).float()
        found[f"{direction}_rank"] = torch.from_numpy(ranks)
        found[f"{direction}_metrics"] = _metrics(ranks, float(np.median(ranks)))
    return found


def check_metrics(tensors: Tensors, meta: Meta) -> Tensors:
    """Ranks and metrics of one caption a video."""
    scores = tensors["scores"].numpy()
    found: Tensors = {}
    for direction, directed in (("t2v", scores), ("v2t", scores.T)):
        ranks = best_ranks(directed, np.eye(len(scores), dtype=bool))
        found[f"{direction}_rank"] = torch.from_numpy(ranks)
        found[f"{direction}_metrics"] = _metrics(ranks, float(np.median(ranks)))
    return found


def check_captions(tensors: Tensors, meta: Meta) -> Tensors:
    """Metrics of several captions a video."""
    scores = tensors["scores"].numpy()
    caption_video = np.repeat(np.arange(scores.shape[1]), tensors["captions_per_video"].numpy())
    of_captions, of_videos = caption_ranks(scores, caption_video), video_ranks(scores, caption_video)
    return {
        "t2v_metrics": _metrics(of_captions, lower_median(of_captions)),
        "v2t_metrics": _metrics(of_videos, float(np.median(of_videos))),
        "v2t_rank": torch.from_numpy(of_videos),
    }


@torch.no_grad()
def check_choice(model: StoaModel, tensors: Tensors, meta: Meta) -> Tensors:
    """The contrastive loss of multiple choice, and the best of each video's own options."""
    video = model.encode_video(tensors["frames"])
    texts = model.encode_text(tensors["input_ids"], tensors["attention_mask"])
    similarity = contrast(model, video, texts)

    options, option_mask = tensors["option_ids"], tensors["option_mask"]
    encoded = model.encode_text(options.flatten(0, 1), option_mask.flatten(0, 1))
    embedding = pool_frames(video.memory.frames, normalised=False)
    scores = torch.einsum("B E, B O E -> B O", embedding, encoded.embedding.unflatten(0, options.shape[:2]))
    predicted = scores.argmax(dim=-1)
    return {
        "similarity": similarity,
        "loss_vtc": contrastive_loss(similarity),
        "option_scores": scores,
        "predicted": predicted,
        "num_correct": (predicted == tensors["answer"]).sum(),
    }


def check_optimizer(tensors: Tensors, meta: Meta) -> Tensors:
    """Some steps of BertAdam over groups of different rates."""
    names = list(meta["lr"])
    parameters = {name: torch.nn.Parameter(tensors[f"param.{name}"].clone()) for name in names}
    groups = [
        {"params": [parameters[name]], "lr": meta["lr"][name], "weight_decay": meta["weight_decay"][name]}
        for name in names
    ]
    optimizer = BertAdam(
        groups,
        lr=0.0,
        total_steps=meta["total_steps"],
        warmup=meta["warmup"],
        schedule=meta["schedule"],
        betas=(meta["b1"], meta["b2"]),
        eps=meta["eps"],
        max_grad_norm=meta["max_grad_norm"],
    )
    after: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for step in range(len(tensors[f"grad.{names[0]}"])):
        for name, parameter in parameters.items():
            parameter.grad = tensors[f"grad.{name}"][step].clone()
        optimizer.step()
        for name, parameter in parameters.items():
            after[name].append(parameter.detach().clone())
    return {f"after.{name}": torch.stack(steps) for name, steps in after.items()}


def _metrics(ranks: NDArray, median: float) -> torch.Tensor:
    """R@1, R@5, R@10, median and mean rank, as the cases order them."""
    found = recalls(ranks, "of")
    return torch.tensor([found["of_r1"], found["of_r5"], found["of_r10"], median, float(ranks.mean())])
