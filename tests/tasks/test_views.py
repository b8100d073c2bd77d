"""Views of videos in recognition: equal to a plain loop, and averaged video by video."""

import numpy as np
import pytest
import torch

from configs.load import from_dict
from configs.schema import RecognitionConfig
from tasks.metrics.recognition import class_logits
from tasks.views import Views, in_order

ROWS = np.random.default_rng(3).standard_normal((5, 4)).astype(np.float32)


def test_views_are_put_in_the_order_of_their_videos() -> None:
    views = in_order([(7, ROWS[0]), (2, ROWS[1]), (7, ROWS[2]), (4, ROWS[3]), (2, ROWS[4])])
    assert views.positions == [2, 4, 7] and views.video.tolist() == [0, 0, 1, 2, 2]
    assert np.array_equal(views.embeddings, ROWS[[1, 4, 3, 0, 2]])
    assert in_order([]).positions == []


def test_probabilities_and_cosines_are_averaged() -> None:
    views = in_order([(0, ROWS[0]), (0, ROWS[1]), (0, ROWS[2]), (1, ROWS[3]), (1, ROWS[4])])
    logits = torch.from_numpy(np.random.default_rng(4).standard_normal((5, 3)) * 9).float()
    found = torch.from_numpy(views.mean_logits(logits.numpy())).softmax(dim=1)
    expected = [logits[:3].softmax(dim=1).mean(dim=0), logits[3:].softmax(dim=1).mean(dim=0)]
    assert torch.allclose(found.float(), torch.stack(expected), atol=1e-6)

    classes = np.eye(4, dtype=np.float32)
    cosines = class_logits(ROWS, classes)
    order = class_logits(views.mean_embeddings(), classes)
    for video, rows in enumerate((slice(0, 3), slice(3, 5))):
        mean = cosines[rows].mean(axis=0)
        assert np.allclose(order[video] / np.linalg.norm(order[video]), mean / np.linalg.norm(mean), atol=1e-5)


def test_a_single_view_is_left_as_it_is() -> None:
    views = Views([0, 1], ROWS[:2], np.arange(2))
    assert views.mean_embeddings() is views.embeddings and views.mean_logits(ROWS[:2]) is not None
    assert np.array_equal(views.mean_logits(ROWS[:2]), ROWS[:2])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"evaluation": {"windows": 2}}, "evaluation.windows: slide within the intervals of video.eval_sampling"),
        ({"evaluation": {"windows": 0}}, "evaluation.windows: 0 is less than 1"),
    ],
)
def test_impossible_views_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_dict(
            RecognitionConfig,
            {"task": "recognition", "data": {"root": "x", "dataset": "labelled"}, **settings},
            "test",
        )
