"""The rates that judge decisions, as one table: everything that computes or shows one goes through `RATES`.

To add a rate, add an entry to `RATES`: figures, console, report, the names of what is 0/0 and the columns of published
figures follow. Read it as `rates.RATES`, so that whoever changes the table changes it for all.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Outcomes:
    """How often each outcome of a decision occurred; four arrays of one shape.

    `hits`: true positives. `false_alarms`: false positives. `misses`: false negatives. `rejections`: true negatives.
    """
    hits: np.ndarray
    false_alarms: np.ndarray
    misses: np.ndarray
    rejections: np.ndarray


@dataclass(frozen=True)
class Rate:
    """A share of the outcomes.

    `name`: its key in `Report.values`, in published figures and in the report (`precision` gives `precision_COVID`).
    `formula`: the outcomes to numerator and denominator.
    `undefined`: why its denominator can be 0, for the sentence that names such classes.
    `heading`: of its column on the console, None to leave it out there; by default its name.
    """
    name: str
    formula: Callable[[Outcomes], tuple[np.ndarray, np.ndarray]]
    undefined: str
    heading: str | None = ""

    @property
    def title(self) -> str:
        """The name as a heading."""
        return self.name[0].upper() + self.name[1:]

    @property
    def console_heading(self) -> str:
        """The heading of its column on the console."""
        return self.heading or self.title

    def of(self, counts: Outcomes) -> np.ndarray:
        """The rate of each class, in the shape of the counts; nan for 0/0."""
        numerator, denominator = self.formula(counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return numerator / denominator


RATES: tuple[Rate, ...] = (
    Rate("precision", lambda n: (n.hits, n.hits + n.false_alarms), "never called"),
    Rate("recall", lambda n: (n.hits, n.hits + n.misses), "no positives"),
    # Not on the console, which is as wide as a terminal.
    Rate("specificity", lambda n: (n.rejections, n.rejections + n.false_alarms), "no negatives", heading=None),
    Rate("F1", lambda n: (2 * n.hits, 2 * n.hits + n.false_alarms + n.misses), "neither positives nor calls",
         heading="F1_Score"),
)


def on_console() -> list[Rate]:
    """The rates that the console shows, in its order."""
    return [rate for rate in RATES if rate.heading is not None]


def decisions(scores: np.ndarray, activation: str, thresholds: np.ndarray | float) -> np.ndarray:
    """Which classes a system calls: the one rule for figures, manifest, pictures and page.

    Args:
        scores: (N, K) probabilities.
        activation: "softmax" for exclusive classes, of which the highest is called; "sigmoid" for independent ones.
        thresholds: of "sigmoid", (K,) or one for all; a score at its threshold is called, none at nan.

    Returns:
        (N, K) bool.
    """
    if activation == "softmax":
        return np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]
    return scores >= np.asarray(thresholds)


def count_outcomes(truth: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Count true positives, false positives, false negatives and true negatives.

    Args:
        truth: (..., N, K) bool, which classes are in the image.
        called: (..., N, K) bool, which classes are said to be.

    Returns:
        Counts (4, ..., K).
    """
    return np.stack([outcome.sum(axis=-2) for outcome in split_outcomes(truth, called)])


def split_outcomes(truth: np.ndarray, called: np.ndarray) -> tuple[np.ndarray, ...]:
    """Whether each decision is a true positive, false positive, false negative, true negative: four bool arrays."""
    return truth & called, ~truth & called, truth & ~called, ~truth & ~called


def rates_of(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Every rate by its name, from counts (4, ...) of outcomes as `count_outcomes` gives them; nan for 0/0."""
    outcomes = Outcomes(*counts)
    return {rate.name: rate.of(outcomes) for rate in RATES}
