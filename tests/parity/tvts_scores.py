"""TVTSv2's cases of scores: retrieval metrics in both directions, recognition by prompts and by options."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.prompts import fill_prompts
from models.parts.clip.tokenizer import load_clip_tokenizer
from tasks.metrics.ranks import average_windows, rank_statistics, text_to_video_ranks, video_to_text_ranks
from tasks.metrics.recognition import class_embeddings, class_logits, option_logits, top_accuracy, unit
from tests.parity.cases import Meta, Tensors
from tests.parity.facts import Differing, compare_facts
from tests.parity.tvts_data import clip_vocabulary

STATISTICS = {
    "R1": "r1",
    "R5": "r5",
    "R10": "r10",
    "R50": "r50",
    "MedR": "median_rank",
    "MeanR": "mean_rank",
    "geometric_mean_R1-R5-R10": "geometric_mean",
}


def retrieval_statistics(tensors: Tensors, meta: Meta) -> tuple[NDArray, dict[str, dict[str, float]]]:
    """The similarity of a case, given or from sliding windows, and the statistics of both directions."""
    if "similarity" in meta["inputs"]:
        similarity = tensors["similarity"].numpy()
    else:
        windows, window_video = tensors["window_embeddings"].numpy(), tensors["window_video"].numpy()
        videos = average_windows(windows, window_video, meta["videos"])
        similarity = unit(tensors["text_embeddings"].numpy()) @ unit(videos).T
    text_video = np.repeat(np.arange(meta["videos"]), meta.get("captions_per_video", 1))
    mask = tensors.get("query_mask")
    exists = None if mask is None else mask.numpy().astype(bool).reshape(-1)
    t2v = text_to_video_ranks(similarity, text_video, "best", exists)
    v2t = video_to_text_ranks(similarity, text_video, "mean", exists)
    return similarity, {"t2v": rank_statistics(t2v), "v2t": rank_statistics(v2t)}


def compute_retrieval_metrics(tensors: Tensors, meta: Meta) -> Tensors:
    """Metrics in the order of the case."""
    similarity, statistics = retrieval_statistics(tensors, meta)
    outputs: Tensors = {"similarity": torch.from_numpy(similarity).to(tensors["similarity"].dtype)}
    for direction, found in statistics.items():
        values = [found[STATISTICS[name]] for name in meta["metrics"]]
        outputs[direction] = torch.tensor(values, dtype=tensors[direction].dtype)
    return outputs


def retrieval_facts(tensors: Tensors, meta: Meta) -> Differing:
    """The reference's printed lines."""
    _, statistics = retrieval_statistics(tensors, meta)
    printed = []
    for direction, found in statistics.items():
        recalls = ", ".join(f"R@{k}: {found[f'r{k}']:.1f}" for k in (1, 5, 10, 50))
        ranks = f"MedR: {found['median_rank']:g}, MeanR: {found['mean_rank']:.1f}"
        printed.append(f"[{direction}_metrics] epoch 0, {recalls}, {ranks}")
    return compare_facts(meta, printed=printed)


def compute_recognition(tensors: Tensors, meta: Meta) -> Tensors:
    """Logits and accuracies, by prompts or by each video's options."""
    videos, labels = tensors["video_embeddings"].numpy(), tensors["labels"].numpy()
    if "option_text_embeddings" in tensors:
        logits = option_logits(videos, tensors["option_text_embeddings"].numpy())
    else:
        logits = class_logits(videos, class_embeddings(tensors["class_text_embeddings"].numpy()))
    outputs = {"logits": torch.from_numpy(logits).to(tensors["logits"].dtype)}
    for most in (1, 5):
        outputs[f"top{most}"] = torch.tensor(top_accuracy(logits, labels, most), dtype=tensors[f"top{most}"].dtype)
    if "prompt_ids" in tensors:
        outputs["prompt_ids"] = prompt_ids(meta, tensors["prompt_ids"])
    return outputs


def prompt_ids(meta: Meta, expected: Tensor) -> Tensor:
    prompts = fill_prompts(meta["classes"], meta["templates"])
    texts = [prompt for of_class in prompts for prompt in of_class]
    ids, _ = load_clip_tokenizer(clip_vocabulary())(texts, expected.shape[-1], pad_to_max=True)
    return ids.view(len(prompts), len(meta["templates"]), -1) if expected.ndim == 3 else ids


def recognition_facts(tensors: Tensors, meta: Meta) -> Differing:
    """The reference's printed lines."""
    found = compute_recognition(tensors, meta)
    return compare_facts(meta, printed=[f"Top-{most} accuracy: {found[f'top{most}'].item():.2f}" for most in (1, 5)])


KINDS = {
    "tvts_retrieval_metrics": compute_retrieval_metrics,
    "tvts_recognition": compute_recognition,
}
FACTS = {
    "tvts_retrieval_metrics": retrieval_facts,
    "tvts_recognition": recognition_facts,
}
