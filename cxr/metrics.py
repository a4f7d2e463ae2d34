"""How good is it: areas under the curve, precision, recall, F1, and the table that shows them."""
from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from prettytable import PrettyTable
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax
from sklearn.metrics import confusion_matrix, roc_auc_score

from cxr.files import write_csv


def auroc(scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Area under the ROC curve of each class: scores and 0/1 labels (N, K) to (K,) float64.

    A class without positives or without negatives is `nan` and named in a warning.
    """
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


def scores_from_logits(logits: np.ndarray, activation: str) -> np.ndarray:
    """Logits (N, crops, K) to probabilities (N, K), averaged over the crops as CheXNet's ten-crop test does."""
    return (expit(logits) if activation == "sigmoid" else softmax(logits, axis=-1)).mean(axis=1)


def log_loss(logits: np.ndarray, labels: np.ndarray, activation: str) -> float:
    """Mean loss over the images, of the probabilities averaged over crops; exact also for confident errors.

    logits (N, crops, K); labels (N, K) of 0/1 for `sigmoid` (binary cross entropy, mean over classes too), or
    (N,) class indices for `softmax` (cross entropy).
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
    """Figures of one evaluation.

    `values`: name -> number, flat (`loss`, `accuracy`, `AUROC_avg`, `AUROC_COVID`, `precision_COVID`, ...).
    `table`: the same for people. `confusion`: (K, K) counts, row = truth, for exclusive classes, else None.
    """
    values: dict[str, float]
    table: str
    confusion: np.ndarray | None = None


def evaluate(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str], activation: str) -> Report:
    """Judge logits (N, crops, K) against labels: (N, K) of 0/1 for `sigmoid`, (N,) indices for `softmax`.

    Precision, recall and F1 take the highest score for exclusive classes and a threshold of 0.5 for independent
    ones. What is 0/0 (the precision of a class never predicted) is `nan`.
    """
    scores = scores_from_logits(logits, activation)
    if activation == "sigmoid":
        truth, chosen, confusion = labels > 0, scores >= 0.5, None
        accuracy = float((truth == chosen).mean())
    else:
        confusion = confusion_matrix(labels, scores.argmax(axis=1), labels=np.arange(len(class_names)))
        truth = np.eye(len(class_names), dtype=bool)[labels]
        chosen = np.eye(len(class_names), dtype=bool)[scores.argmax(axis=1)]
        accuracy = float(np.trace(confusion) / len(labels))
    hits = (truth & chosen).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "AUROC": auroc(scores, truth, class_names),
            "precision": hits / chosen.sum(axis=0),
            "recall": hits / truth.sum(axis=0),
            "F1": 2 * hits / (chosen.sum(axis=0) + truth.sum(axis=0)),
        }
    areas = columns["AUROC"][~np.isnan(columns["AUROC"])]
    values = {"loss": log_loss(logits, labels, activation), "accuracy": accuracy,
              "AUROC_avg": float(areas.mean()) if areas.size else float("nan")}
    for metric, column in columns.items():
        values.update({f"{metric}_{name}": float(value) for name, value in zip(class_names, column)})
    table = PrettyTable(["Type", "Images", "Precision", "Recall", "F1_Score", "AUROC"], align="r")
    table.align["Type"] = "l"
    for index, name in enumerate(class_names):
        table.add_row([name, int(truth[:, index].sum())]
                      + [f"{columns[metric][index]:.3f}" for metric in ("precision", "recall", "F1", "AUROC")])
    return Report(values, table.get_string(), confusion)


def headline(values: dict[str, float]) -> str:
    """`loss 0.182, accuracy 0.965, mean AUROC 0.991`."""
    return f"loss {values['loss']:.4f}, accuracy {values['accuracy']:.4f}, mean AUROC {values['AUROC_avg']:.4f}"


def write_predictions(path, names: Sequence[str], logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str],
                      activation: str) -> None:
    """Write one row an image: `image`, its label(s), and `prob_<class>` of every class.

    Exclusive classes have the columns `label` and `predicted` with class names, independent findings one column
    `label_<class>` of 0/1 each.
    """
    scores = scores_from_logits(logits, activation)
    if activation == "sigmoid":
        header = [f"label_{name}" for name in class_names]
        truth = labels.astype(int).tolist()
    else:
        header = ["label", "predicted"]
        truth = [[class_names[label], class_names[row.argmax()]] for label, row in zip(labels, scores)]
    rows = ([name, *told, *(f"{score:.7g}" for score in row)] for name, told, row in zip(names, truth, scores))
    write_csv(path, ["image", *header, *(f"prob_{name}" for name in class_names)], rows)
