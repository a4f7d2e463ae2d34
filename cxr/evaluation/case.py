"""What is judged, and what comes out: a case, a figure with its interval, an evaluation."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr.evaluation.report import Section
from cxr.metrics.bootstrap import Interval
from cxr.metrics.classification import truth_of
from cxr.metrics.rates import decisions

MEAN = "Mean"


@dataclass(frozen=True)
class Case:
    """What is judged: scores (N, K) probabilities; labels (N, K) of 0/1 for `sigmoid`, (N,) indices for `softmax`;
    the patient of each image.
    """
    scores: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]
    activation: str
    patients: Sequence[str]

    @property
    def truth(self) -> np.ndarray:
        """(N, K) bool."""
        return truth_of(self.labels, len(self.class_names), self.activation)

    def called(self, thresholds: Sequence[float]) -> np.ndarray:
        """(N, K) bool: the highest score of exclusive classes, else the scores at or above their thresholds (K,)."""
        return decisions(self.scores, self.activation, thresholds)


@dataclass(frozen=True)
class Figure:
    """A point figure with its interval."""
    value: float
    interval: Interval

    def __str__(self) -> str:
        if np.isnan(self.interval.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.interval.low:.3f} to {self.interval.high:.3f})"

    def to_json(self) -> dict[str, float]:
        """The figure as `report.json` holds it."""
        return {"value": float(self.value), "low": self.interval.low, "high": self.interval.high,
                "resamples": self.interval.kept}


@dataclass(frozen=True)
class Evaluation:
    """`sections` of the report and the `table` for the console."""
    sections: list[Section]
    table: str
