"""Recognition's logits and accuracies by hand."""

import numpy as np
import pytest

from tasks.metrics.recognition import (
    class_embeddings,
    class_logits,
    confusion_matrix,
    option_logits,
    recognition_metrics,
    top_accuracy,
)

LOGITS = np.array([[3.0, 2, 1, 0, 0, 0, 0], [1.0, 1, 0, 0, 0, 0, 0], [0.0, 5, 0, 9, 0, 0, 0], [7.0, 6, 5, 4, 3, 2, 1]])


def test_templates_weigh_the_same_however_long_they_are() -> None:
    prompts = np.array([[[9.0, 0.0], [0.0, 0.1]], [[0.0, 2.0], [0.0, 1.0]]])
    classes = class_embeddings(prompts)
    assert np.allclose(classes, [[np.sqrt(0.5), np.sqrt(0.5)], [0, 1]])
    assert np.allclose(class_logits(np.array([[3.0, 3.0]]), classes), [[100, 100 * np.sqrt(0.5)]])


def test_each_video_is_compared_with_its_own_options() -> None:
    options = np.array([[[2.0, 0], [0, 3]], [[1, 1], [1, 0]]])
    assert np.allclose(option_logits(np.array([[1.0, 0], [0, 5]]), options), [[100, 0], [100 * np.sqrt(0.5), 0]])


def test_accuracies_by_hand() -> None:
    labels = np.array([0, 1, 1, 6])
    # The second ties, which counts against it; the last is the worst of seven.
    assert (top_accuracy(LOGITS, labels, 1), top_accuracy(LOGITS, labels, 5)) == (25.0, 75.0)
    assert confusion_matrix(LOGITS, labels)[1].tolist() == [1, 0, 0, 1, 0, 0, 0]
    found = recognition_metrics(LOGITS, labels)
    assert found == {"top1": 25.0, "top5": 75.0, "mean_per_class": pytest.approx(100 / 3)}


def test_logits_that_are_no_number_are_never_right() -> None:
    assert top_accuracy(np.full((2, 3), np.nan), np.array([0, 1]), 1) == 0.0


@pytest.mark.parametrize("label", [-1, 7])
def test_labels_out_of_range_are_refused(label: int) -> None:
    with pytest.raises(ValueError, match=f"video 2 has the label {label}; classes are 0 to 6"):
        top_accuracy(LOGITS, np.array([0, 1, label, 2]), 1)
