"""Operating points: from which probability on a finding is called, and the file beside the weights that says so."""
from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cxr.errors import InputError
from cxr.metrics.rates import decisions
from cxr.utils.files import sha256, write_json

_REMEDY = "fit it again with `tools/eval.py MODEL --fit youden`, or remove it"


@dataclass(frozen=True)
class Operating:
    """Where a classifier operates, fitted on images that are not the test images.

    `thresholds`: class -> probability as the model gives it (before `temperature`); a finding is called at or above
    it. nan for a class whose threshold could not be fitted; empty for exclusive classes, where the highest score
    decides.
    `prevalence`: class -> share of positives among the images it was fitted on, 0 to 1.
    `rule`: `youden`, `sensitivity 0.90`. `fitted_on`: the list, as a sentence shows it.
    `temperature`: dividing the logits by it makes the probabilities those that occur; 1 changes nothing.
    """
    thresholds: Mapping[str, float]
    prevalence: Mapping[str, float]
    rule: str
    fitted_on: str
    temperature: float = 1.0


def parse_rule(text: str) -> float | None:
    """The sensitivity that a rule asks for.

    Args:
        text: `youden` or such as `sensitivity=0.90`.

    Returns:
        The sensitivity, None for `youden`.

    Raises:
        InputError: for any other text.
    """
    if text == "youden":
        return None
    name, _, value = text.replace("=", " ").partition(" ")
    try:
        sensitivity = float(value)
    except ValueError:
        sensitivity = math.nan
    if name != "sensitivity" or not 0 < sensitivity <= 1:
        raise InputError(f"--fit '{text}' is no rule for thresholds: write youden, or sensitivity=0.90.")
    return sensitivity


def choose_threshold(scores: np.ndarray, positive: np.ndarray, sensitivity: float | None = None) -> float:
    """The score from which on a finding is called.

    Args:
        scores: (N,).
        positive: (N,) bool.
        sensitivity: the share of the positives that must be found; None for the threshold with the largest
            sensitivity + specificity - 1 (Youden 1950).

    Returns:
        The highest such score; nan without positives or negatives.
    """
    from sklearn.metrics import roc_curve

    if not 0 < np.count_nonzero(positive) < len(positive):
        return math.nan
    false_alarms, found, thresholds = roc_curve(positive, scores, drop_intermediate=False)
    # The first point calls nothing at all, which is no threshold.
    index = int(np.argmax((found - false_alarms)[1:] if sensitivity is None else found[1:] >= sensitivity))
    return float(thresholds[1:][index])


def fit_operating(scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str], activation: str, rule: str,
                  fitted_on: str) -> Operating:
    """Thresholds and temperature from a validation set. Exclusive classes (`softmax`) get a temperature only.

    Args:
        scores: (N, K).
        labels: (N, K) of 0/1 for `sigmoid`, (N,) class indices for `softmax`.
        class_names: K names.
        activation: `sigmoid` or `softmax`.
        rule: see `parse_rule`.
        fitted_on: the set, as a sentence shows it.

    Returns:
        The operating point.

    Raises:
        InputError: for an unknown rule.
    """
    from cxr.metrics.calibration import fit_temperature
    from cxr.metrics.classification import truth_of

    sensitivity = parse_rule(rule)
    truth = truth_of(labels, len(class_names), activation)
    thresholds = {name: choose_threshold(scores[:, k], truth[:, k], sensitivity)
                  for k, name in enumerate(class_names)} if activation == "sigmoid" else {}
    prevalence = {name: float(truth[:, k].mean()) for k, name in enumerate(class_names)}
    return Operating(thresholds, prevalence, "youden" if sensitivity is None else f"sensitivity {sensitivity:.2f}",
                     fitted_on, fit_temperature(scores, labels, activation))


def operating_table(operating: Operating, scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str],
                    activation: str) -> str:
    """For people: what was fitted, and the sensitivity and specificity that it has on those images (N, K)."""
    from prettytable import PrettyTable

    from cxr.metrics.classification import truth_of
    from cxr.metrics.rates import count_outcomes, rates_of

    truth = truth_of(labels, len(class_names), activation)
    table = PrettyTable(["Type", "Images", "Prevalence", "Threshold", "Sensitivity", "Specificity"], align="r")
    table.align["Type"] = "l"
    for k, name in enumerate(class_names):
        threshold = operating.thresholds.get(name, math.nan)
        reached = rates_of(count_outcomes(truth[:, k:k + 1], scores[:, k:k + 1] >= threshold))
        figures = (threshold, *(reached[key][0] if threshold == threshold else math.nan
                                for key in ("recall", "specificity")))
        table.add_row([name, truth[:, k].sum(), f"{operating.prevalence[name]:.4f}",
                       *(f"{figure:.4f}" for figure in figures)])
    return table.get_string(fields=table.field_names if operating.thresholds else table.field_names[:3])


def operating_path(ckpt: str | os.PathLike) -> Path:
    """`best.pdparams` -> `best.thresholds.json` beside it."""
    return Path(ckpt).with_suffix(".thresholds.json")


def write_operating(ckpt: str | os.PathLike, operating: Operating) -> Path:
    """Store the operating point beside the weights, tied to their content by SHA-256; returns the file's path."""
    path = operating_path(ckpt)
    write_json(path, {"weights_sha256": sha256(ckpt), **asdict(operating)})
    return path


def read_operating(ckpt: str | os.PathLike) -> Operating | None:
    """The operating point stored beside these weights; None where there is none.

    Raises:
        InputError: where the file is damaged or belongs to other weights.
    """
    path = operating_path(ckpt)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, f"is not JSON ({error})") from None
    try:
        thresholds, prevalence = (
            {str(name): math.nan if value is None else float(value) for name, value in stored[key].items()}
            for key in ("thresholds", "prevalence"))
        operating = Operating(thresholds, prevalence, str(stored["rule"]), str(stored["fitted_on"]),
                              float(stored["temperature"]))
        belongs_to = stored["weights_sha256"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"does not hold what it should ({type(error).__name__}: {error})") from None
    numbers = [*thresholds.values(), *prevalence.values()]
    if not thresholds.keys() <= prevalence.keys() or any(not 0 <= value <= 1 for value in numbers if value == value) \
            or not 0 < operating.temperature < math.inf:
        raise _damaged(path, "holds numbers that cannot be")
    if belongs_to != sha256(ckpt):
        raise InputError(f"{path} was fitted to other weights than {ckpt}; {_REMEDY}.")
    return operating


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path} {what}; {_REMEDY}.")


def remark(class_name: str, score: float, operating: Operating | None) -> str:
    """`threshold 21 %, 24x its prevalence`, as far as they are known."""
    if operating is None:
        return ""
    limit, prevalence = (known.get(class_name, np.nan) for known in (operating.thresholds, operating.prevalence))
    parts = [] if np.isnan(limit) else [f"threshold {limit * 100:.3g} %"]
    if prevalence > 0:
        ratio = score / prevalence
        parts.append(f"{ratio:.{0 if ratio >= 10 else 1}f}x its prevalence")
    return ", ".join(parts)


def called(scores: np.ndarray, class_names: Sequence[str], activation: str,
           operating: Operating | None) -> list[bool | None]:
    """Which classes of one image count as called: at or above the threshold, or the highest of exclusive classes.

    Args:
        scores: (K,) probabilities.
        class_names: K names.
        activation: "softmax" for exclusive classes, "sigmoid" for findings that are scored on their own.
        operating: holds the thresholds of "sigmoid"; None where none were fitted.

    Returns:
        K answers; None for a finding without a threshold.
    """
    known = operating.thresholds if operating else {}
    limits = np.array([known.get(name, math.nan) for name in class_names])
    answers = decisions(np.asarray(scores)[None], activation, limits)[0].tolist()
    return answers if activation == "softmax" else [None if unknown else answer
                                                    for answer, unknown in zip(answers, np.isnan(limits))]
