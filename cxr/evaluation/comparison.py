"""Two systems on the same images: the difference of their figures, by paired bootstrap over patients."""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from prettytable import PrettyTable

from cxr.errors import InputError
from cxr.evaluation.case import MEAN, Case, Evaluation, Figure
from cxr.evaluation.report import Picture, Section, Table
from cxr.evaluation.sections import left_out, with_mean
from cxr.metrics.bootstrap import RESAMPLES, Resamples, interval, p_value
from cxr.metrics.classification import auroc, average_precision
from cxr.visual import charts

_ACCURACY = "Accuracy"


def compare(first: Case, second: Case, names: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> Evaluation:
    """AUROC, average precision and, for exclusive classes, accuracy of `first` minus `second`.

    In every resample both are judged on the same patients, so that what is hard for both cancels.

    Args:
        first, second: the same images in the same order, scored by two systems.
        names: of the two systems.
        resamples, seed: of the bootstrap.

    Returns:
        A section for each figure, and the table for the console.
    """
    draws = Resamples(first.patients, resamples, seed)
    cases, truth = (first, second), first.truth
    areas, precisions = [], []
    for case in cases:
        area_samples, precision_samples = draws.ranking(case.scores, truth)
        areas.append(with_mean(auroc(case.scores, truth, case.class_names), area_samples))
        precisions.append(with_mean(average_precision(case.scores, truth), precision_samples))
    labels = [*first.class_names, MEAN]
    parts = [_section("AUROC", labels, areas, names, draws),
             _section("average precision", labels, precisions, names, draws)]
    if first.activation == "softmax":
        parts.append(_section("accuracy", [_ACCURACY], [_accuracy(case, draws) for case in cases], names, draws))
    sections = [section for section, _ in parts]
    sections[0].blocks.insert(0, (
        f"Paired bootstrap: in each of {draws.count:,} resamples of the {draws.patients:,} patients (seed "
        f"{draws.seed}) both systems are judged on the same images; a difference above 0 speaks for {names[0]}. p is "
        f"two-sided and for one row alone: among {len(first.class_names)} classes some fall below 0.05 by chance, so "
        "the mean is the row to decide by."))
    table = PrettyTable(_header(names), align="r")
    table.align["Type"] = "l"
    # For the console AUROC and accuracy are enough; the report has the rest.
    for section, rows in parts:
        if section.name != "difference_average_precision":
            table.add_rows(rows)
    return Evaluation(sections, table.get_string())


def short_names(paths: Sequence[str | os.PathLike]) -> tuple[str, str]:
    """What to call two files of predictions: their names, with as many folders before them as it takes to differ."""
    first, second = (Path(path).with_suffix("").parts for path in paths)
    for length in range(1, max(len(first), len(second)) + 1):
        names = "/".join(first[-length:]), "/".join(second[-length:])
        if names[0] != names[1]:
            return names
    raise InputError(f"--compare names {paths[0]} twice: name two files.")


def _accuracy(case: Case, draws: Resamples) -> tuple[np.ndarray, np.ndarray]:
    right = case.scores.argmax(axis=1) == case.labels
    hit, images = draws.sums(np.stack([right, np.ones(len(right))], axis=1)).T
    return np.array([right.mean()]), (hit / images)[:, None]


def _header(names: Sequence[str]) -> list[str]:
    return ["Type", *names, "Difference (95 %)", "p"]


def _section(kind: str, labels: Sequence[str], systems: Sequence[tuple[np.ndarray, np.ndarray]], names: Sequence[str],
             draws: Resamples) -> tuple[Section, list[list[str]]]:
    """The section of a figure, and the rows of its table. `systems`: values (L,) and resamples (R, L) of each."""
    (values_a, samples_a), (values_b, samples_b) = systems
    figures = {label: Figure(values_a[k] - values_b[k], interval(samples_a[:, k] - samples_b[:, k]))
               for k, label in enumerate(labels)}
    p_values = [p_value(samples_a[:, k] - samples_b[:, k]) for k in range(len(labels))]
    rows = [[label, f"{values_a[k]:.3f}", f"{values_b[k]:.3f}", str(figures[label]), f"{p_values[k]:.3f}"]
            for k, label in enumerate(labels)]
    name = f"difference_{kind.replace(' ', '_')}"
    bars = {label: (figure.value, figure.interval.low, figure.interval.high) for label, figure in figures.items()}
    blocks = [Table(_header(names), rows, (MEAN,)), *left_out(draws, figures),
              Picture(name, charts.intervals(bars, f"{kind}: {names[0]} minus {names[1]}", chance=0),
                      f"Difference of {kind} with its 95 % interval; dashed: no difference.", charts.DPI)]
    values = {label: {names[0]: float(values_a[k]), names[1]: float(values_b[k]),
                      "difference": figures[label].to_json(), "p": p_values[k]} for k, label in enumerate(labels)}
    return Section(name, f"Difference of {kind}", blocks, values), rows
