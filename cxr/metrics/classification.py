"""How good is it: areas under the curve, precision, recall, specificity, F1, and the table that shows them.

scikit-learn is imported where it is needed: it takes longer than Paddle, and a CAM needs none of it.
"""
from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from prettytable import PrettyTable
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax

from cxr.device.guards import check_probabilities
from cxr.metrics import rates


def auroc(scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Area under the ROC curve of each class.

    Args:
        scores: (N, K).
        labels: (N, K) of 0/1.
        class_names: K names.

    Returns:
        Areas (K,), float64; nan for a class without positives or without negatives, which a warning names.
    """
    from sklearn.metrics import roc_auc_score

    areas = np.full(len(class_names), np.nan)
    undefined = []
    for index, name in enumerate(class_names):
        positives = labels[:, index].sum()
        if 0 < positives < len(labels):
            areas[index] = roc_auc_score(labels[:, index], scores[:, index])
        else:
            undefined.append(f"{name} ({'no positives' if positives == 0 else 'no negatives'})")
    if undefined:
        warnings.warn(f"AUROC is undefined, and left out of the mean, for {', '.join(undefined)}.", stacklevel=2)
    return areas


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision of each class, the area under its precision-recall steps.

    Args:
        scores: (N, K).
        labels: (N, K) of 0/1.

    Returns:
        Average precisions (K,), float64; nan for a class without positives. Chance gives the share of positives, not
        0.5.
    """
    from sklearn.metrics import average_precision_score

    return np.array([average_precision_score(labels[:, k], scores[:, k]) if labels[:, k].any() else np.nan
                     for k in range(scores.shape[1])])


def mean(figures: np.ndarray) -> float:
    """Mean over the classes whose figure is defined; nan where none is."""
    known = figures[~np.isnan(figures)]
    return float(known.mean()) if known.size else float("nan")


def truth_of(labels: np.ndarray, n_classes: int, activation: str) -> np.ndarray:
    """Labels as a table of yes and no.

    Args:
        labels: (N, K) of 0/1 for `sigmoid`, (N,) class indices for `softmax`.
        n_classes: K.
        activation: `sigmoid` or `softmax`.

    Returns:
        (N, K) bool.
    """
    return labels > 0 if activation == "sigmoid" else np.eye(n_classes, dtype=bool)[labels]


def scores_from_logits(logits: np.ndarray, activation: str) -> np.ndarray:
    """Probabilities, averaged over the crops as CheXNet's ten-crop test does.

    Args:
        logits: (N, crops, K).
        activation: `sigmoid` or `softmax`.

    Returns:
        (N, K).
    """
    return (expit(logits) if activation == "sigmoid" else softmax(logits, axis=-1)).mean(axis=1)


def log_loss(logits: np.ndarray, labels: np.ndarray, activation: str) -> float:
    """Mean loss over the images, of the probabilities averaged over crops; exact also for confident errors.

    Args:
        logits: (N, crops, K).
        labels: (N, K) of 0/1 for `sigmoid`, (N,) class indices for `softmax`.
        activation: `sigmoid` for binary cross entropy, a mean over the classes too; `softmax` for cross entropy.

    Returns:
        The loss.
    """
    crops = logits.shape[1]
    logits = logits.astype(np.float64)
    if activation == "sigmoid":
        log_yes = logsumexp(log_expit(logits), axis=1) - np.log(crops)
        log_no = logsumexp(log_expit(-logits), axis=1) - np.log(crops)
        return float(-np.where(labels > 0, log_yes, log_no).mean())
    log_scores = logsumexp(log_softmax(logits, axis=-1), axis=1) - np.log(crops)
    return float(-log_scores[np.arange(len(labels)), labels].mean())


@dataclass(frozen=True)
class Report:
    """Figures of an evaluation.

    `values`: name -> number, flat (`loss`, `accuracy`, `AUROC_avg`, `AUROC_COVID`, `precision_COVID`, ...).
    `table`: the same for people. `confusion`: (K, K) counts, row = truth, for exclusive classes, else None.
    """
    values: dict[str, float]
    table: str
    confusion: np.ndarray | None = None


def evaluate(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str], activation: str) -> Report:
    """Judge logits against labels.

    Args:
        logits: (N, crops, K).
        labels: (N, K) of 0/1 for `sigmoid`, (N,) class indices for `softmax`.
        class_names: K names.
        activation: `sigmoid` or `softmax`.

    Returns:
        The figures.

    Raises:
        InputError: for probabilities that cannot be.
    """
    scores = scores_from_logits(logits, activation)
    check_probabilities(scores, activation, "the probabilities")
    return evaluate_scores(scores, labels, class_names, activation, log_loss(logits, labels, activation))


def evaluate_scores(scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str], activation: str,
                    loss: float) -> Report:
    """Judge probabilities against labels.

    For the rates (`cxr.metrics.rates`) the highest score is called where classes are exclusive, and every score from
    0.5 on where they are independent. What is 0/0 (the precision of a class never called) is nan.

    Args:
        scores: (N, K).
        labels: (N, K) of 0/1 for `sigmoid`, (N,) class indices for `softmax`.
        class_names: K names.
        activation: `sigmoid` or `softmax`.
        loss: `log_loss` of the scores.

    Returns:
        The figures.
    """
    truth = truth_of(labels, len(class_names), activation)
    called = rates.decisions(scores, activation, 0.5)
    if activation == "sigmoid":
        confusion, accuracy = None, float((truth == called).mean())
    else:
        from sklearn.metrics import confusion_matrix

        confusion = confusion_matrix(labels, scores.argmax(axis=1), labels=np.arange(len(class_names)))
        accuracy = float(np.trace(confusion) / len(labels))
    columns = {"AUROC": auroc(scores, truth, class_names), **rates.rates_of(rates.count_outcomes(truth, called))}
    values = {"loss": loss, "accuracy": accuracy, "AUROC_avg": mean(columns["AUROC"])}
    for metric, column in columns.items():
        values.update({f"{metric}_{name}": float(value) for name, value in zip(class_names, column)})
    shown = rates.on_console()
    table = PrettyTable(["Type", "Images", *(rate.console_heading for rate in shown), "AUROC"], align="r")
    table.align["Type"] = "l"
    for index, name in enumerate(class_names):
        figures = [columns[metric][index] for metric in (*(rate.name for rate in shown), "AUROC")]
        table.add_row([name, int(truth[:, index].sum()), *(f"{figure:.3f}" for figure in figures)])
    return Report(values, table.get_string(), confusion)


def headline(values: dict[str, float]) -> str:
    """`loss 0.182, accuracy 0.965, mean AUROC 0.991`."""
    return f"loss {values['loss']:.4f}, accuracy {values['accuracy']:.4f}, mean AUROC {values['AUROC_avg']:.4f}"
