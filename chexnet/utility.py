"""What the published scripts import from here: the classes, and the metric that CheXNet is judged by."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from paddle import Tensor
from paddle.metric import Metric

from chexnet.labels import CLASS_NAMES, N_CLASSES
from cxr.metrics.classification import auroc


class AUROC(Metric):
    """Area under the ROC curve of each class and their mean, for `paddle.Model` or your own loop.

    `update` only collects; the areas are computed by `accumulate`, from all scores since `reset`. A class
    without positives or without negatives has no area: it is `nan`, left out of the mean, and named in a
    warning.

    Args:
        num_classes: number of classes.
        class_names: as many names, in the order of the scores.

    Raises:
        ValueError: if the two disagree.
    """

    def __init__(self, num_classes: int = N_CLASSES, class_names: Sequence[str] = CLASS_NAMES):
        super().__init__()
        if len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class names for {num_classes} classes.")
        self._class_names = list(class_names)
        self.reset()

    def reset(self) -> None:
        """Forget all scores and labels."""
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def update(self, preds: np.ndarray | Tensor, labels: np.ndarray | Tensor) -> None:
        """Add a batch.

        Args:
            preds: scores (B, num_classes).
            labels: (B, num_classes) of 0 and 1.

        Raises:
            ValueError: for other shapes.
        """
        preds, labels = np.asarray(preds), np.asarray(labels)
        if preds.shape != labels.shape or preds.ndim != 2 or preds.shape[1] != len(self._class_names):
            raise ValueError(f"scores {preds.shape} and labels {labels.shape} must both be "
                             f"(batch, {len(self._class_names)}).")
        self._scores.append(preds)
        self._labels.append(labels)

    def accumulate(self) -> list[float]:
        """The areas in the order of the classes, then their mean: `num_classes + 1` floats."""
        if not self._scores:
            return [float("nan")] * (len(self._class_names) + 1)
        areas = auroc(np.concatenate(self._scores), np.concatenate(self._labels), self._class_names)
        known = areas[~np.isnan(areas)]
        return [*areas.tolist(), float(known.mean()) if known.size else float("nan")]

    def name(self) -> list[str]:
        """The names of the figures that `accumulate` returns."""
        return [f"AUROC_{name}" for name in self._class_names] + ["AUROC_avg"]
