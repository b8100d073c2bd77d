"""Linear probes: against plain formulas, on data that a line separates, and with groups kept apart."""

import time

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from tasks.probe import NUM_FOLDS, PENALTIES, choose_penalty, fit_ridge, fit_sgd, folds


def blobs(count: int = 120, classes: int = 4, width: int = 8, spread: float = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, width, generator=generator)
    labels = torch.arange(count) % classes
    # Features of very unlike sizes, as those of networks are.
    scale = torch.logspace(-2, 2, width)
    return (centres[labels] + spread * torch.randn(count, width, generator=generator)) * scale + 3, labels


def test_the_closed_form_is_ridge_regression() -> None:
    features, labels = blobs()
    probe = fit_ridge(features, labels, 4, penalty=0.1)
    standard = (features.double() - features.double().mean(0)) / features.double().std(0, correction=0)
    # The same as ordinary least squares with the penalty written as more rows, and the mean taken off.
    targets = F.one_hot(labels, 4).double()
    rows = torch.cat([standard, (0.1 * len(labels)) ** 0.5 * torch.eye(8, dtype=torch.float64)])
    wanted = torch.cat([targets - targets.mean(0), torch.zeros(8, 4, dtype=torch.float64)])
    weight = torch.linalg.lstsq(rows, wanted).solution
    assert_close(probe.weight, weight.T, atol=1e-9, rtol=1e-7)
    assert_close(probe.logits(features), (standard @ weight + targets.mean(0)).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["ridge", "sgd"])
def test_what_a_line_separates_is_learned(kind: str) -> None:
    features, labels = blobs(400)
    train, test = slice(0, 300), slice(300, 400)
    fit = fit_ridge if kind == "ridge" else lambda *args: fit_sgd(*args, seed=0)
    probe = fit(features[train], labels[train], 4)
    assert (probe.logits(features[test]).argmax(1) == labels[test]).float().mean() > 0.9
    shuffled = labels[train][torch.randperm(300, generator=torch.Generator().manual_seed(1))]
    chance = fit(features[train], shuffled, 4).logits(features[test]).argmax(1) == labels[test]
    assert chance.float().mean() < 0.5


def test_equal_seeds_give_equal_probes() -> None:
    features, labels = blobs()
    first, second, other = (fit_sgd(features, labels, 4, seed=seed, epochs=3) for seed in (0, 0, 1))
    assert torch.equal(first.weight, second.weight) and not torch.equal(first.weight, other.weight)
    assert torch.equal(fit_ridge(features, labels, 4).weight, fit_ridge(features, labels, 4).weight)


def test_folds_keep_groups_together_and_spread_classes() -> None:
    labels = torch.arange(60) % 3
    groups = [None if row < 10 else f"film {row // 4}" for row in range(60)]
    masks = folds(labels, groups)
    assert len(masks) == NUM_FOLDS and torch.equal(torch.stack(masks).sum(0), torch.ones(60, dtype=torch.int64))
    for mask in masks:
        held_out = {group for group, out in zip(groups, mask.tolist(), strict=True) if out and group}
        assert not held_out & {group for group, out in zip(groups, mask.tolist(), strict=True) if not out and group}
    for mask in folds(labels):
        assert len(labels[mask].unique()) == 3


def test_groups_change_the_choice_where_videos_of_one_group_are_alike() -> None:
    """Each group looks like itself and not like its class, which only folds of whole groups notice."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(100) // 4
    labels = groups % 2
    features = torch.randn(25, 40, generator=generator)[groups] + 0.01 * torch.randn(100, 40, generator=generator)
    names = [f"group {group}" for group in groups.tolist()]
    assert choose_penalty(features, labels, 2) < choose_penalty(features, labels, 2, names)


def test_ten_thousand_features_take_seconds() -> None:
    features, labels = torch.randn(10_000, 512), torch.arange(10_000) % 101
    started = time.perf_counter()
    probe = fit_ridge(features, labels, 101)
    assert time.perf_counter() - started < 30
    assert probe.penalty in PENALTIES and probe.weight.shape == (101, 512)


def test_bad_input_is_refused() -> None:
    features, labels = blobs(8)
    with pytest.raises(ValueError, match="7 features for 8 labels"):
        fit_ridge(features[:7], labels, 4)
    with pytest.raises(ValueError, match="video 3 has the label 3; classes are 0 to 2"):
        fit_ridge(features, labels, 3)
    with pytest.raises(ValueError, match="at least two classes"):
        fit_sgd(features, torch.zeros(8, dtype=torch.int64), 4, seed=0)
    features[5, 2] = torch.nan
    with pytest.raises(ValueError, match="features of video 5"):
        fit_ridge(features, labels, 4)


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features, labels = blobs()
    constant = torch.cat([features, torch.full((len(features), 1), 7.0)], dim=1)
    found = fit_ridge(constant, labels, 4, penalty=0.1).logits(constant)
    assert_close(found, fit_ridge(features, labels, 4, penalty=0.1).logits(features), atol=1e-4, rtol=0)
