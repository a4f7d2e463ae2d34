"""Losses of one image each, and which images a training epoch shows: what unequal classes need."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle
from paddle.nn import functional as F


@dataclass(frozen=True)
class Loss:
    """Loss of every image of a batch, from logits, which stays exact where the probability rounds to 0 or 1.

    `sigmoid`: binary cross entropy over labels (B, K) of 0/1, mean over the findings. `softmax`: cross entropy over
    class indices (B,) or (B, 1); the same as the negative log likelihood of a log-softmax.

    Args:
        activation: of the model, "sigmoid" or "softmax".
        smoothing: share of the label's weight that goes to all classes alike (Szegedy et al. 2016), 0-1.
        weights: of `balanced_weights`, or None.

    Dividing the sum of these losses by the number of images gives the mean also where a step's images come in
    several batches or from several processes; weights do not enter the divisor, as their mean over the set is 1.
    """
    activation: str
    smoothing: float = 0.0
    weights: np.ndarray | None = None

    def __call__(self, logits, labels):
        """Logits (B, K) and labels to losses (B,), float32."""
        logits = logits.astype("float32")
        if self.activation == "sigmoid":
            targets = labels * (1 - self.smoothing) + self.smoothing / 2
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            if self.weights is not None:
                absent, present = paddle.to_tensor(self.weights)
                losses = losses * paddle.where(labels > 0, present, absent)
            return losses.mean(axis=1)
        labels = labels.flatten()
        targets = F.one_hot(labels, logits.shape[1]) * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        # Paddle's own cross_entropy and log_softmax cut the loss of an image at 64.
        losses = (targets * (logits.logsumexp(axis=1, keepdim=True) - logits)).sum(axis=1)
        return losses if self.weights is None else losses * paddle.to_tensor(self.weights)[labels]


def hits(logits, labels, activation: str):
    """Share of right answers of every image, (B,) float32: of all findings for `sigmoid`, 0 or 1 for `softmax`."""
    if activation == "sigmoid":
        return ((logits > 0).astype("float32") == labels).astype("float32").mean(axis=1)
    return (logits.argmax(axis=1) == labels.flatten()).astype("float32")


def balanced_weights(labels: np.ndarray, classes: int, activation: str) -> np.ndarray:
    """Weights that let rare classes count as much as common ones; their mean over the training set is 1.

    `softmax`: labels (N,) to (K,), N / (K n_k), classes without images left out. `sigmoid`: labels (N, K) to (2, K),
    the weight of an absent and of a present finding, N / (2 n): their ratio is that of CheXNet's weighted loss
    (Rajpurkar et al. 2017). A finding that all images or none have keeps the weight 1.
    """
    if activation == "sigmoid":
        counts = np.stack([(labels == 0).sum(axis=0), (labels > 0).sum(axis=0)])
        there = (counts > 0).all(axis=0)
    else:
        counts = np.bincount(labels, minlength=classes)
        there = counts > 0
    shares = 2 if activation == "sigmoid" else there.sum()
    return np.where(there, len(labels) / (shares * np.maximum(counts, 1)), 1).astype("float32")


def image_weights(labels: np.ndarray, activation: str) -> np.ndarray:
    """Probability (N,) of drawing each image so that every class is drawn equally often.

    With independent findings an image counts by its rarest one, and those without any are a class of their own.
    """
    if activation == "sigmoid":
        positives = labels > 0
        healthy = ~positives.any(axis=1)
        rarity = np.where(positives, 1 / np.maximum(positives.sum(axis=0), 1), 0).max(axis=1)
        weights = np.where(healthy, 1 / max(healthy.sum(), 1), rarity)
    else:
        weights = 1 / np.bincount(labels)[labels]
    return weights / weights.sum()


def epoch_order(count: int, seed: int, epoch: int, probabilities: np.ndarray | None = None) -> np.ndarray:
    """Indices of an epoch: all images shuffled, or as many drawn with the given probabilities, with repetition.

    Depends on (seed, epoch) alone, so that a run can be taken up anywhere.
    """
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(count) if probabilities is None else rng.choice(count, count, p=probabilities)
