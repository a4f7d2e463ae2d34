"""Figures that cannot be: refused before they are printed, wherever they come from."""
from __future__ import annotations

import math
import warnings

import numpy as np

from cxr.device.choice import checked
from cxr.errors import InputError

_SUM_TOLERANCE = 1e-3                            # of probabilities of exclusive classes, in float32 or half precision
_ROUNDING = 1e-4                                 # of a sum of many shares in float32
REMEDY = ("that cannot be, so the device computes wrong numbers: go on with --device cpu (or CXR_DEVICE=cpu), and run "
          "`python tools/doctor.py`")


def check_share(value: float, what: str) -> None:
    """Refuse a share, such as an accuracy, that cannot be.

    Args:
        value: the share.
        what: it is, for the sentence.

    Raises:
        InputError: it is not in [0, 1].
    """
    if not -_ROUNDING <= value <= 1 + _ROUNDING:
        raise InputError(f"{what} is {value:.4f}: {REMEDY}.")


def check_loss(value: float, what: str) -> None:
    """Refuse a mean cross entropy that cannot be; one that is not a number is up to the caller to explain.

    Args:
        value: the mean.
        what: it is, for the sentence.

    Raises:
        InputError: it is below 0.
    """
    if math.isfinite(value) and value < -_ROUNDING:
        raise InputError(f"{what} is {value:.4f}: {REMEDY}.")


def check_probabilities(scores: np.ndarray, activation: str, what: str) -> None:
    """Refuse probabilities that cannot be.

    Args:
        scores: (N, K).
        activation: "softmax" for exclusive classes, "sigmoid" otherwise.
        what: they are, for the sentence.

    Raises:
        InputError: some are not in [0, 1], or those of exclusive classes do not sum to 1.
    """
    if not len(scores):
        return
    low, high = float(scores.min()), float(scores.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):          # also where they are no numbers
        raise InputError(f"{what} are between {low:.4f} and {high:.4f}: {REMEDY}.")
    sums = scores.sum(axis=-1)
    furthest = float(sums.flat[np.abs(sums - 1).argmax()])
    if activation == "softmax" and abs(furthest - 1) > _SUM_TOLERANCE:
        raise InputError(f"{what} of exclusive classes sum to {furthest:.4f}: {REMEDY}.")


class SameScores:
    """Notices when different images get scores that are equal to the last bit, which a network that works never gives.

    `see` and `check` after every batch. It stops comparing as soon as two different images have different scores.
    """

    def __init__(self) -> None:
        self._first: tuple[np.ndarray, np.ndarray] | None = None
        self._different_images = 1
        self._works = self._said = False

    def see(self, images: np.ndarray, scores: np.ndarray) -> None:
        """Compare a batch with the first image.

        Args:
            images: (B, ...).
            scores: (B, ...), what the network gave for them.
        """
        for image, score in zip(images, scores):
            if self._works:
                return
            if self._first is None:
                self._first = image.copy(), score.copy()
            elif not np.array_equal(image, self._first[0]):
                self._different_images += 1
                self._works = not np.array_equal(score, self._first[1])

    def check(self, device: str) -> None:
        """Say so if scores were the same: a single warning on a device whose known answers were right.

        Args:
            device: Paddle's name of it.

        Raises:
            InputError: they were, on any other device.
        """
        if self._works or self._different_images < 2 or self._said:
            return
        same = f"{self._different_images} different images have scores that are equal to the last bit"
        if not checked(device):
            raise InputError(f"{same} on {device}, which has not been checked: {REMEDY}.")
        self._said = True
        warnings.warn(f"{same}: the network does not look at its input any more (its training diverged, or its weights "
                      "are not what they should be), and its figures mean nothing.", stacklevel=3)
