"""Do the probabilities mean what they say: reliability, expected calibration error, temperature scaling."""
from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logit

from cxr.metrics.classification import log_loss, scores_from_logits

BINS = 15
_MARGIN = 1e-12                                  # probabilities of 0 and 1 have no logit
_MAX_TEMPERATURE = 20.0                          # temperatures are sought between 1/20 and 20


@dataclass(frozen=True)
class Reliability:
    """What was said and what happened, for each bin that holds images.

    `said`: mean probability, `happened`: share of positives, `count`: images; all (bins,).
    """
    said: np.ndarray
    happened: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |said - happened| over the images, 0 to 1; nan without images."""
        if not self.count.sum():
            return float("nan")
        return float((np.abs(self.said - self.happened) * self.count).sum() / self.count.sum())


def reliability(probabilities: np.ndarray, happened: np.ndarray, bins: int = BINS) -> Reliability:
    """Sort probabilities into bins of equal width, [0, 1/15), [1/15, 2/15), ... [14/15, 1], as Guo et al. 2017.

    Args:
        probabilities: (N,), 0 to 1.
        happened: whether it came true, (N,) of 0/1.
        bins: their number.

    Returns:
        Mean probability, share of positives and images of each bin that holds any.
    """
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    said = np.bincount(place, probabilities, bins)[filled] / count[filled]
    share = np.bincount(place, happened, bins)[filled] / count[filled]
    return Reliability(said, share, count[filled])


def logits_from_scores(scores: np.ndarray, activation: str) -> np.ndarray:
    """Logits of probabilities that were stored without them.

    Args:
        scores: probabilities (N, K); those of exactly 0 and 1 count as 1e-12 away from them.
        activation: `sigmoid` or `softmax`.

    Returns:
        Logits (N, 1, K), float64.
    """
    scores = np.clip(np.asarray(scores, np.float64), _MARGIN, 1 - _MARGIN)
    return (logit(scores) if activation == "sigmoid" else np.log(scores))[:, None]


def at_temperature(scores: np.ndarray, temperature: float, activation: str) -> np.ndarray:
    """Divide the logits of probabilities by a temperature.

    Args:
        scores: probabilities (N, K).
        temperature: 1 changes nothing.
        activation: `sigmoid` or `softmax`.

    Returns:
        Probabilities (N, K).
    """
    if temperature == 1:
        return scores
    return scores_from_logits(logits_from_scores(scores, activation) / temperature, activation)


def fit_temperature(scores: np.ndarray, labels: np.ndarray, activation: str) -> float:
    """The temperature that lowers the log loss most (Guo et al. 2017), the same for all classes.

    Args:
        scores: probabilities (N, K) of images that are not those of the test.
        labels: theirs, as for `cxr.metrics.classification.log_loss`.
        activation: `sigmoid` or `softmax`.

    Returns:
        The temperature. Where the loss has no lowest point between 1/20 and 20 (every image right, or scores without
        any relation to the labels) it is 1, with a warning.
    """
    logits = logits_from_scores(scores, activation)
    ends = np.log([1 / _MAX_TEMPERATURE, _MAX_TEMPERATURE])
    found = minimize_scalar(lambda log_t: log_loss(logits / np.exp(log_t), labels, activation), bounds=tuple(ends),
                            method="bounded", options={"xatol": 1e-6})
    if np.abs(found.x - ends).min() < 1e-2:
        warnings.warn("no temperature fits: the scores separate these images without an error, or not at all. It stays "
                      "at 1; fit on more images.", stacklevel=2)
        return 1.0
    return float(np.exp(found.x))
