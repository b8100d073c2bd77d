"""Action recognition: class embeddings from prompts, logits, and accuracy.

Shapes: V videos, C classes, P templates a class, O options, E width of embeddings.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LOGIT_SCALE = 100.0


def class_embeddings(prompts_CPE: NDArray) -> NDArray:
    """One unit vector a class (C, E): the mean of its prompts' unit vectors."""
    return unit(unit(prompts_CPE).mean(axis=1))


def class_logits(videos_VE: NDArray, classes_CE: NDArray) -> NDArray:
    """100 times the cosine (V, C) of videos and classes of unit length."""
    return LOGIT_SCALE * unit(videos_VE) @ classes_CE.T


def option_logits(videos_VE: NDArray, options_VOE: NDArray) -> NDArray:
    """100 times the cosine (V, O) of each video and its own options."""
    return LOGIT_SCALE * np.einsum("ve,voe->vo", unit(videos_VE), unit(options_VOE))


def own_option_logits(videos_VE: NDArray, texts_PE: NDArray, rows: Sequence[Sequence[int]]) -> NDArray:
    """The same where options are rows of one table of texts: (V, O), with -inf where a video has fewer than O.

    It never holds the options of more than one video at a time.
    """
    videos, texts = unit(videos_VE), unit(texts_PE)
    logits = np.full((len(rows), max(map(len, rows))), -np.inf, dtype=np.float32)
    for video, own in enumerate(rows):
        logits[video, : len(own)] = LOGIT_SCALE * texts[list(own)] @ videos[video]
    return logits


def unit(embeddings: NDArray) -> NDArray:
    """Embeddings (..., E) brought to unit length."""
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)


def top_accuracy(logits_VC: NDArray, labels: NDArray, most: int) -> float:
    """The percentage of videos whose class is among the `most` best.

    Ties and NaN logits count against us. ValueError names a label that is no class.
    """
    return 100 * float(is_among_best(logits_VC, labels, most).mean())


def is_among_best(logits_VC: NDArray, labels: NDArray, most: int) -> NDArray:
    """Whether each video's class is among the `most` best, bool (V,); arguments as in `top_accuracy`."""
    check_labels(labels, logits_VC.shape[1])
    own = np.take_along_axis(logits_VC, labels[:, None], axis=1)
    not_worse = ~(logits_VC < own)
    return not_worse.sum(axis=1) <= most


def mean_per_class(logits_VC: NDArray, labels: NDArray) -> float:
    """The accuracy of each class, in percent, averaged over the classes that have videos."""
    confusion = confusion_matrix(logits_VC, labels)
    counts = confusion.sum(axis=1)
    seen = counts > 0
    return 100 * float((confusion.diagonal()[seen] / counts[seen]).mean())


def confusion_matrix(logits_VC: NDArray, labels: NDArray) -> NDArray:
    """Counts (C, C) of videos by true class (rows) and predicted class (columns)."""
    num_classes = logits_VC.shape[1]
    check_labels(labels, num_classes)
    pairs = labels * num_classes + logits_VC.argmax(axis=1)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def recognition_metrics(logits_VC: NDArray, labels: NDArray) -> dict[str, float]:
    """`top1`, `top5` and `mean_per_class`, in percent."""
    return {**top_accuracies(logits_VC, labels), "mean_per_class": mean_per_class(logits_VC, labels)}


def top_accuracies(logits_VC: NDArray, labels: NDArray) -> dict[str, float]:
    """`top1` and `top5`, in percent."""
    return {"top1": top_accuracy(logits_VC, labels, 1), "top5": top_accuracy(logits_VC, labels, 5)}


def check_labels(labels: NDArray, num_classes: int) -> None:
    """Raise a ValueError that names the first label that is no class."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise ValueError(f"video {wrong[0]} has the label {labels[wrong[0]]}; classes are 0 to {num_classes - 1}")
