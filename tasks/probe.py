"""A linear classifier on frozen features: in closed form, or by SGD.

Shapes: N videos, E width of their features, C classes. TVTSv2 published no recipe. Ours standardises the features, fits
ridge regression onto the classes, and chooses the penalty by cross-validation that holds out whole groups.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.metrics.recognition import check_labels

PENALTIES = tuple(10.0**power for power in range(-3, 5))
"""Penalties of a closed-form probe, relative to the mean variance of a feature times the number of videos."""
NUM_FOLDS = 5
SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of features (N, E): standardise, multiply by the weight, add the bias.

    Attributes:
        mean, std: (E,), statistics of the training features.
        weight, bias: (C, E) and (C,).
        penalty: the ridge penalty it was fitted with; 0 for SGD.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    penalty: float = 0.0

    def logits(self, features_NE: Tensor) -> Tensor:
        """Scores (N, C), float32."""
        standard = (features_NE.double() - self.mean) / self.std
        return (standard @ self.weight.double().T + self.bias.double()).float()


def fit_ridge(
    features_NE: Tensor,
    labels_N: Tensor,
    num_classes: int,
    penalty: float | None = None,
    groups: Sequence[str | None] | None = None,
) -> LinearProbe:
    """Fit ridge regression onto one column per class; the closed form needs no random numbers.

    Args:
        penalty: on the weights; by default `choose_penalty` picks one of PENALTIES by cross-validation.
        groups: the recording each video was cut from; videos of one group are held out together.

    ValueError if the labels name fewer than two classes or are out of range, or if a feature is not a finite number.
    """
    _check(features_NE, labels_N, num_classes)
    if penalty is None:
        penalty = choose_penalty(features_NE, labels_N, num_classes, groups)
    mean, std = _standardisation(features_NE)
    ridge = _Ridge((features_NE.double() - mean) / std, labels_N, num_classes)
    weight, bias = ridge.solve(penalty)
    return LinearProbe(mean, std, weight, bias, penalty)


def choose_penalty(
    features_NE: Tensor, labels_N: Tensor, num_classes: int, groups: Sequence[str | None] | None = None
) -> float:
    """The penalty that recognises the most held-out videos in cross-validation; ties go to the largest."""
    right = torch.zeros(len(PENALTIES))
    for held_out in folds(labels_N, groups):
        # With very few groups a fold may hold out every video, or none: it tells nothing.
        if held_out.all() or not held_out.any():
            continue

        # Standardise by the training videos alone: the held-out ones must not leak into the fit.
        mean, std = _standardisation(features_NE[~held_out])
        standard = (features_NE.double() - mean) / std
        ridge = _Ridge(standard[~held_out], labels_N[~held_out], num_classes)

        for index, penalty in enumerate(PENALTIES):
            weight, bias = ridge.solve(penalty)
            predicted = (standard[held_out] @ weight.T + bias).argmax(dim=1)
            right[index] += (predicted == labels_N[held_out]).sum()

    best = max(range(len(PENALTIES)), key=lambda index: (float(right[index]), index))
    return PENALTIES[best]


def folds(labels_N: Tensor, groups: Sequence[str | None] | None = None) -> list[Tensor]:
    """Masks (N,) of the videos that each fold holds out: whole groups, with the classes spread evenly over the folds.

    A video without a group forms its own group.
    """
    names = [f"alone {row}" for row in range(len(labels_N))]
    if groups is not None:
        names = [names[row] if group is None else f"group {group}" for row, group in enumerate(groups)]

    # Sort the groups by class and first appearance, then deal them out in turn: each fold gets some of every class.
    first_row = {name: row for row, name in reversed(list(enumerate(names)))}
    order = sorted(first_row, key=lambda name: (int(labels_N[first_row[name]]), first_row[name]))
    fold_of = {name: position % NUM_FOLDS for position, name in enumerate(order)}

    fold_N = torch.tensor([fold_of[name] for name in names])
    return [fold_N == fold for fold in range(NUM_FOLDS)]


class _Ridge:
    """Ridge regression onto one-hot labels, factored once so that trying another penalty is cheap."""

    def __init__(self, standard_NE: Tensor, labels_N: Tensor, num_classes: int) -> None:
        targets = F.one_hot(labels_N, num_classes).double()
        self._mean = standard_NE.mean(dim=0)
        self._share = targets.mean(dim=0)
        # Centre features and targets, so that the penalty does not shrink the bias.
        centred = standard_NE - self._mean
        self._scale = len(standard_NE)

        # X'X = V diag(values) V', so (X'X + penalty I)^-1 only adds the penalty to the eigenvalues: one decomposition
        # serves all penalties.
        self._values, self._vectors = torch.linalg.eigh(centred.T @ centred)
        self._rotated = self._vectors.T @ (centred.T @ (targets - self._share))

    def solve(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Weight (C, E) and bias (C,)."""
        shrunk = self._rotated / (self._values.clamp(min=0) + penalty * self._scale).unsqueeze(1)
        weight = (self._vectors @ shrunk).T
        return weight, self._share - weight @ self._mean


def fit_sgd(
    features_NE: Tensor,
    labels_N: Tensor,
    num_classes: int,
    seed: int,
    epochs: int = 100,
    batch_size: int = 256,
    lr: float = 0.1,
    weight_decay: float = 1e-9,
    warmup_epochs: int = 10,
) -> LinearProbe:
    """Fit softmax regression by SGD with momentum 0.9, warm-up and cosine, as TVTS v1 trained its linear classifiers.

    `lr` is for batches of 256 and scales with the batch. The order of the videos depends only on the seed.
    """
    _check(features_NE, labels_N, num_classes)
    mean, std = _standardisation(features_NE)
    standard = ((features_NE.double() - mean) / std).float()

    weight = torch.zeros(num_classes, standard.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=lr, momentum=0.9, weight_decay=weight_decay)

    generator = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, len(standard))
    steps_per_epoch = math.ceil(len(standard) / batch_size)

    for epoch in range(epochs):
        order = torch.randperm(len(standard), generator=generator)
        for step, rows in enumerate(order.split(batch_size)):
            done = epoch + step / steps_per_epoch
            optimizer.param_groups[0]["lr"] = lr * batch_size / 256 * _rate(done, epochs, warmup_epochs)

            loss = F.cross_entropy(standard[rows] @ weight.T + bias, labels_N[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return LinearProbe(mean, std, weight.detach(), bias.detach())


def _rate(done: float, epochs: int, warmup_epochs: int) -> float:
    """The learning-rate factor after `done` epochs: linear warm-up, then a cosine down to 0."""
    if done < warmup_epochs:
        return done / warmup_epochs
    return 0.5 * (1 + math.cos(math.pi * (done - warmup_epochs) / max(1, epochs - warmup_epochs)))


def _standardisation(features_NE: Tensor) -> tuple[Tensor, Tensor]:
    features = features_NE.double()
    return features.mean(dim=0), features.std(dim=0, correction=0).clamp(min=SMALLEST_STD)


def _check(features_NE: Tensor, labels_N: Tensor, num_classes: int) -> None:
    if len(features_NE) != len(labels_N):
        raise ValueError(f"{len(features_NE)} features for {len(labels_N)} labels")
    check_labels(labels_N.numpy(), num_classes)
    if len(labels_N.unique()) < 2:
        raise ValueError("a linear probe needs videos of at least two classes")
    wrong = (~features_NE.isfinite()).any(dim=1).nonzero()
    if len(wrong):
        raise ValueError(f"the features of video {int(wrong[0])} are not all numbers")
