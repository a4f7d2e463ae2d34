"""Stored predictions, ours or any other system's: a row for each image, a probability for each class."""
from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from cxr.data.lists import LabelList
from cxr.errors import InputError
from cxr.metrics.classification import scores_from_logits
from cxr.utils.files import write_csv

_SUM_TOLERANCE = 0.01                            # how far from 1 probabilities of exclusive classes may sum


def write_predictions(path: str | os.PathLike, names: Sequence[str], logits: np.ndarray, labels: np.ndarray,
                      class_names: Sequence[str], activation: str) -> None:
    """Write a row for each image: `image`, its label(s), and `prob_<class>` of every class.

    Exclusive classes have the columns `label` and `predicted` with class names, independent findings a column
    `label_<class>` of 0/1 each. Nine digits keep every float32 apart, so that ranks survive.

    Args:
        path: of the CSV file.
        names: of the images, N.
        logits: (N, crops, K).
        labels: (N, K) of 0/1 for `sigmoid`, (N,) class indices for `softmax`.
        class_names: K names.
        activation: `sigmoid` or `softmax`.
    """
    scores = scores_from_logits(logits, activation)
    if activation == "sigmoid":
        header = [f"label_{name}" for name in class_names]
        truth = labels.astype(int).tolist()
    else:
        header = ["label", "predicted"]
        truth = [[class_names[label], class_names[row.argmax()]] for label, row in zip(labels, scores)]
    rows = ([name, *label, *(f"{score:.9g}" for score in row)] for name, label, row in zip(names, truth, scores))
    write_csv(path, ["image", *header, *(f"prob_{name}" for name in class_names)], rows)


@dataclass(frozen=True)
class Predictions:
    """What a file of predictions says: image names, (N, K) float64 probabilities, and names that came more than once
    (with the same probabilities; the first was kept).
    """
    names: list[str]
    scores: np.ndarray
    duplicates: list[str]


def read_predictions(path: str | os.PathLike, class_names: Sequence[str], activation: str) -> Predictions:
    """Read a table with a header: the image in the column `image` or else the first, and `prob_<class>` or `<class>`.

    Further columns are left alone.

    Args:
        path: of the CSV file.
        class_names: the classes it must have.
        activation: `sigmoid` or `softmax`.

    Returns:
        Each image once.

    Raises:
        InputError: for a missing class, a short row, what is no probability (nan, outside 0-1, for exclusive classes a
            sum other than 1), and an image that comes twice with different numbers.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if row] or [(1, [])]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path of the predictions.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no readable table ({error}): check the path of the predictions.") from None
    header, lines = [cell.strip() for cell in lines[0][1]], lines[1:]
    columns, lacking = [], []
    for name in class_names:
        found = next((title for title in (f"prob_{name}", name) if title in header), None)
        if found is None:
            lacking.append(name)
        elif header.count(found) > 1:
            raise InputError(f"{path} has {header.count(found)} columns {found}: keep one.")
        else:
            columns.append(header.index(found))
    if lacking:
        raise InputError(f"{path} has no column prob_<class> or <class> for {', '.join(lacking)}; its columns are "
                         f"{', '.join(header) or 'none'}: name the classes of the system with --class_names, in the "
                         "order of the labels.")
    if not lines:
        raise InputError(f"{path} holds a header and no images.")
    image = header.index("image") if "image" in header else 0
    short = next(((number, row) for number, row in lines if len(row) <= max(image, *columns)), None)
    if short:
        raise InputError(f"{path}, line {short[0]} has only {len(short[1])} of {len(header)} cells: complete it.")
    scores = np.array([_probabilities(row, columns, f"{path}, line {number}") for number, row in lines])
    names = [row[image].strip() for _, row in lines]
    where = [f"{path}, line {number} ({name})" for (number, _), name in zip(lines, names)]
    _check(scores, where, class_names, activation)
    return _without_repeats(path, names, scores)


def _probabilities(row: Sequence[str], columns: Sequence[int], where: str) -> list[float]:
    try:
        return [float(row[column]) for column in columns]
    except ValueError as error:
        raise InputError(f"{where} ({row[0]}): {error}: every class needs a probability.") from None


def _check(scores: np.ndarray, where: Sequence[str], class_names: Sequence[str], activation: str) -> None:
    """Raise `InputError` for the first thing that is no probability."""
    wrong = np.argwhere(~((scores >= 0) & (scores <= 1)))
    if len(wrong):
        row, k = wrong[0]
        raise InputError(f"{where[row]}: {class_names[k]} has the value {scores[row, k]:g}, which is no probability "
                         f"from 0 to 1 ({len(wrong):,} such cells in all): correct the file.")
    off = np.flatnonzero(np.abs(scores.sum(axis=1) - 1) > _SUM_TOLERANCE) if activation == "softmax" else ()
    if len(off):
        raise InputError(f"{where[off[0]]}: the probabilities of exclusive classes sum to {scores[off[0]].sum():.3f}, "
                         f"not 1 ({len(off):,} such rows in all): correct the file.")


def _without_repeats(path, names: list[str], scores: np.ndarray) -> Predictions:
    """Every image once. Raises `InputError` where one comes again with other numbers."""
    first: dict[str, int] = {}
    repeated, contradictory = [], []
    for index, name in enumerate(names):
        before = first.setdefault(name, index)
        if before != index:
            same = np.array_equal(scores[before], scores[index])
            (repeated if same else contradictory).append(name)
    if contradictory:
        raise InputError(f"{path} gives different predictions for one image {_times(len(contradictory))} "
                         f"({listing(contradictory)}): keep one row an image.")
    kept = list(first.values())
    return Predictions([names[index] for index in kept], scores[kept], repeated)


@dataclass(frozen=True)
class Matched:
    """Predictions brought into the order of a label list.

    `rows`: indices of the list's images that have predictions; `scores`: theirs, (len(rows), K). `missing`, `extra`,
    `duplicates`: names in the list without predictions, in the file without labels, and more than once in the file.
    """
    rows: np.ndarray
    scores: np.ndarray
    missing: list[str]
    extra: list[str]
    duplicates: list[str]

    def remarks(self, path: str | os.PathLike) -> list[str]:
        """A sentence for each kind of mismatch there is, with its number and the first names."""
        kinds = ((self.missing, "images of the list without a prediction, left out of every figure, which flatters a "
                               "system that skips what is hard"),
                (self.extra, "images that are not in the list, ignored"),
                (self.duplicates, "rows that repeat an image with the same numbers, ignored"))
        return [f"{path}: {what}: {len(names):,} ({listing(names)})." for names, what in kinds if names]


def match(path: str | os.PathLike, predictions: Predictions, listed: LabelList) -> Matched:
    """Find the predictions of the list's images by name.

    Args:
        path: of the predictions, for the sentence.
        predictions: what the file says.
        listed: the list.

    Returns:
        The predictions in the list's order, and what does not match.

    Raises:
        InputError: where no image of the list has a prediction.
    """
    place = {name: index for index, name in enumerate(predictions.names)}
    rows = [row for row, name in enumerate(listed.names) if name in place]
    if not rows:
        raise InputError(f"{path} has predictions for none of the images in the list: it names {predictions.names[0]}, "
                         f"the list {listed.names[0]}.")
    known = set(listed.names)
    return Matched(np.array(rows), predictions.scores[[place[listed.names[row]] for row in rows]],
                   [name for name in listed.names if name not in place],
                   [name for name in predictions.names if name not in known], predictions.duplicates)


def match_all(paths: Sequence[str | os.PathLike], systems: Sequence[Predictions],
              listed: LabelList) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """Find the images of a list that all systems predict.

    Args:
        paths: the files of the systems, for the sentences.
        systems: what the files say.
        listed: the list.

    Returns:
        Rows in the list (N,), scores (N, K) of each system, and remarks on what does not match.

    Raises:
        InputError: where no image is left.
    """
    matches = [match(path, predictions, listed) for path, predictions in zip(paths, systems)]
    rows = reduce(np.intersect1d, [matched.rows for matched in matches])
    if not len(rows):
        raise InputError(f"{' and '.join(map(str, paths))} have no image of the list in common: there is nothing to "
                         "compare.")
    scores = [matched.scores[np.searchsorted(matched.rows, rows)] for matched in matches]
    return rows, scores, [remark for path, matched in zip(paths, matches) for remark in matched.remarks(path)]


def listing(names: Sequence[str], most: int = 5) -> str:
    """`a, b, c, d, e and 12 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
