"""Is the split fair: patients and radiographs in two splits, contradicting labels, classes that the source gives away.

Each of these makes a model look better than it is. A model that has seen a patient, or the very image, need not
recognise a disease; nor need one whose classes come from different hospitals (DeGrave et al. 2021).
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cxr.errors import InputError
from cxr.evaluation.duplicates import BITS, MOST_BITS, MOST_PAIRS, Fingerprints, Pair
from cxr.utils.files import write_csv
from cxr.utils.parallel import default_workers, ordered_map
from cxr.utils.progress import progress
from cxr.visual.heatmaps import caption, montage
from cxr.visual.image_files import fit, save_picture

COLUMNS = ("check", "split", "image", "other_split", "other_image", "detail")
QUICK_SECONDS = 5.0                                # that `train` gives to the audit
_TELLING = 0.2                                     # share of the errors that knowing the source must save, to be told
_FEW_SOURCES = 0.5                                 # sources for each image above which they are no sources but names
_TRIED = 4                                         # images that tell how long all would take
_SAMPLED = 1 << 12                                 # bytes in the middle of files of one size that are compared first


@dataclass(frozen=True)
class Check:
    """What was looked at, and what came out.

    Attributes:
        name: what was looked at.
        worrying: whether something is wrong.
        sentence: what came out, for people.
        rows: the data, with the columns COLUMNS without the first.
    """
    name: str
    worrying: bool
    sentence: str
    rows: Sequence[tuple[str, str, str, str, str]] = ()


class _Images:
    """The images of all splits in one numbering."""

    def __init__(self, splits: Mapping):
        self.splits = splits
        self.split = [name for name, dataset in splits.items() for _ in range(len(dataset))]
        self.index = [index for dataset in splits.values() for index in range(len(dataset))]
        self.names = [name for dataset in splits.values() for name in dataset.names]
        self.paths = [path for dataset in splits.values() for path in dataset.paths]

    def __len__(self) -> int:
        return len(self.names)

    def picture(self, number: int) -> np.ndarray:
        return np.asarray(self.splits[self.split[number]].picture(self.index[number]), np.uint8)

    def label(self, number: int) -> str:
        dataset = self.splits[self.split[number]]
        label = np.asarray(dataset.labels[self.index[number]])
        if label.ndim == 0:
            return dataset.class_names[int(label)]
        return "|".join(name for name, value in zip(dataset.class_names, label) if value) or "none"

    def row(self, first: int, second: int, detail: str) -> tuple[str, str, str, str, str]:
        return self.split[first], self.names[first], self.split[second], self.names[second], detail


def audit(splits: Mapping, patients: Mapping[str, str] | None = None, sources: Mapping[str, str] | None = None,
          limit_seconds: float | None = None, workers: int | None = None) -> list[Check]:
    """Look for what makes a split unfair.

    Args:
        splits: split -> data set, see `cxr.data.dataset.XrayDataset`.
        patients: image name -> patient; an image without one, or whose patient is its own name, is left out.
        sources: image name -> hospital, device or collection.
        limit_seconds: do without the images if all of them take longer, and tell copies by their bytes alone; None
            reads them all.
        workers: threads that read images; None takes one for each core, 8 at most.

    Returns:
        All checks that were made, worrying or not.

    Raises:
        InputError: an image cannot be read; under a limit that only ends the comparison.
    """
    until = float("inf") if limit_seconds is None else time.monotonic() + limit_seconds
    images = _Images(splits)
    checks = []
    if any(patient != name for name, patient in (patients or {}).items()):
        checks.append(_shared_patients(images, patients))
    if sources:
        checks += _class_by_source(images, sources)
    prints = _fingerprints(images, until, default_workers() if workers is None else workers)
    if prints is not None:
        pairs, more = prints.pairs()
        found = "show the same radiograph", f"at most {MOST_BITS} of {BITS} bits of their hashes differ"
    else:
        pairs, whole = _copies(images, until)
        more = bool(pairs) and not whole
        found = ("are the same file", "told by size and content" + ("" if whole else ", as far as time allowed")
                 + "; other copies were not looked for")
    return checks + _copied(images, pairs, more, *found)


def _shared_patients(images: _Images, patients: Mapping[str, str]) -> Check:
    seen: dict[str, dict[str, int]] = defaultdict(dict)        # patient -> split -> an image of theirs
    for number, name in enumerate(images.names):
        patient = patients.get(name)
        if patient and patient != name:
            seen[patient].setdefault(images.split[number], number)
    shared = {patient: list(of.values()) for patient, of in seen.items() if len(of) > 1}
    rows = [images.row(first, other, f"patient {patient}")
            for patient, (first, *others) in shared.items() for other in others]
    if not shared:
        return Check("patients", False, f"no patient of {len(seen)} is in two splits")
    first, second, *_ = next(iter(shared.values()))
    return Check("patients", True, f"{len(shared)} of {len(seen)} patients are in more than one split (such as "
                 f"{next(iter(shared))} in {images.split[first]} and {images.split[second]}), which flatters every "
                 "figure: split by patient", rows)


def _class_by_source(images: _Images, sources: Mapping[str, str]) -> list[Check]:
    known = [number for number, name in enumerate(images.names) if sources.get(name)]
    values, of = np.unique([sources[images.names[number]] for number in known], return_inverse=True)
    if len(values) < 2 or len(values) > _FEW_SOURCES * len(known):
        return []
    labels = np.concatenate([np.asarray(dataset.labels) for dataset in images.splits.values()])[known]
    class_names = next(iter(images.splits.values())).class_names
    if labels.ndim == 1:
        return [_exclusive(labels.astype(int), of, values, class_names)]
    return [_findings(labels > 0, of, class_names)]


def _exclusive(labels: np.ndarray, of: np.ndarray, values: np.ndarray, class_names: Sequence[str]) -> Check:
    """Classes of which each image has one, against its source `of`."""
    counts = np.zeros((len(values), len(class_names)), int)
    np.add.at(counts, (of, labels), 1)
    rest = counts[of]                               # what the others of its source are: no image votes for itself
    rest[np.arange(len(of)), labels] -= 1
    guessed = np.where(rest.max(axis=1) > 0, rest.argmax(axis=1), counts.sum(axis=0).argmax())
    accuracy, frequent = (guessed == labels).mean(), counts.sum(axis=0).max() / len(of)
    worrying = accuracy - frequent > _TELLING * (1 - frequent)
    rows = [("", "", "", "", f"source {value}: " + ", ".join(
        f"{name} {count}" for name, count in zip(class_names, own) if count)) for value, own in zip(values, counts)]
    return Check("sources", bool(worrying), f"knowing the source alone gives {accuracy:.0%} accuracy, where always "
                 f"naming the most frequent class gives {frequent:.0%} (Cramer's V {_cramers_v(counts):.2f}, "
                 f"{len(values)} sources)" + (": a model may learn the hospital instead of the disease"
                                              if worrying else ""), rows)


def _cramers_v(counts: np.ndarray) -> float:
    """Association of two categories, 0 to 1, from their table of counts (Cramer 1946). Empty columns do not count."""
    counts = counts[:, counts.sum(axis=0) > 0]
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    smaller = min(counts.shape) - 1
    if smaller == 0:
        return float("nan")                         # one class only: nothing to be associated with
    return float((((counts - expected) ** 2 / expected).sum() / counts.sum() / smaller) ** 0.5)


def _findings(labels: np.ndarray, of: np.ndarray, class_names: Sequence[str]) -> Check:
    """Findings that are each there or not, (N, K) bool: how well "more frequent in that source" tells each of them."""
    size = np.bincount(of)[of][:, None]
    with_it = np.stack([np.bincount(of, column)[of] for column in labels.T], axis=1)
    rate = (with_it - labels) / np.maximum(size - 1, 1)            # among the others of each image's source
    guessed = rate > labels.mean(axis=0)
    positive, negative = labels.sum(axis=0), (~labels).sum(axis=0)
    both = (positive > 0) & (negative > 0)
    right = ((guessed & labels).sum(axis=0) / np.maximum(positive, 1)
             + (~guessed & ~labels).sum(axis=0) / np.maximum(negative, 1)) / 2
    right = np.where(both, right, 0.5)
    worst = int(right.argmax())
    worrying = right[worst] - 0.5 > _TELLING / 2
    rows = [("", "", "", "", f"{name}: balanced accuracy {value:.3f}") for name, value in zip(class_names, right)]
    return Check("sources", bool(worrying), f"knowing the source alone tells {class_names[worst]} with a balanced "
                 f"accuracy of {right[worst]:.0%}, where guessing gives 50%"
                 + (": a model may learn the hospital instead of the disease" if worrying else ""), rows)


def _fingerprints(images: _Images, until: float, workers: int) -> Fingerprints | None:
    """Fingerprints of all images, or None if that would last beyond `until`."""
    result = Fingerprints(len(images))

    def take(number: int) -> None:
        if time.monotonic() < until:
            result.add(number, images.picture(number))
    if until == float("inf"):
        for _ in progress(ordered_map(take, range(len(images)), workers, 4 * workers), total=len(images),
                          desc="read images"):
            pass
        return result
    try:
        began, tried = time.monotonic(), min(_TRIED, len(images))
        for number in range(tried):
            take(number)
        each = (time.monotonic() - began) / max(tried, 1)
        # As if one thread did it: how much more several do depends on the disk.
        if time.monotonic() + each * len(images) > until:
            return None
        for _ in ordered_map(take, range(tried, len(images)), workers, 4 * max(workers, 1)):
            pass
    except (InputError, OSError):                   # training names it when it comes to it
        return None
    return result if time.monotonic() < until else None


def _copies(images: _Images, until: float) -> tuple[list[Pair], bool]:
    """Pairs of files in different splits with the same bytes, and whether all were compared before time was up."""
    def parts(group: Sequence[int], key: Callable[[Path], object]) -> list[list[int]]:
        """The group, parted by `key`, without what lies within one split."""
        by_key: dict[object, list[int]] = defaultdict(list)
        for number in group:
            if time.monotonic() > until:
                break
            with contextlib.suppress(OSError):      # training names it when it comes to it
                by_key[key(images.paths[number])].append(number)
        return [part for part in by_key.values() if len({images.split[number] for number in part}) > 1]

    pairs = []
    for sized in parts(range(len(images)), os.path.getsize):
        for alike in parts(sized, partial(_digest, sampled=True)):
            for same in parts(alike, partial(_digest, sampled=False)):
                pairs += [Pair(first, second, 0) for place, first in enumerate(same) for second in same[place + 1:]
                          if images.split[first] != images.split[second]]
        if len(pairs) > MOST_PAIRS:
            break
    return pairs[:MOST_PAIRS], time.monotonic() < until and len(pairs) <= MOST_PAIRS


def _digest(path: Path, sampled: bool) -> bytes:
    with open(path, "rb") as file:
        if sampled:
            file.seek(os.fstat(file.fileno()).st_size // 2)
            return hashlib.sha256(file.read(_SAMPLED)).digest()
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.digest()


def _copied(images: _Images, pairs: Sequence[Pair], more: bool, verb: str, how: str) -> list[Check]:
    """What pairs of the same radiograph mean: leaks between splits, and labels that contradict each other."""
    across = [pair for pair in pairs if images.split[pair.first] != images.split[pair.second]]
    some = "at least " if more else ""
    if across:
        first, second, _ = across[0]
        sentence = (f"{some}{len(across)} pairs of images in different splits {verb} (such as {images.names[first]} in "
                    f"{images.split[first]} and {images.names[second]} in {images.split[second]}; {how}): keep copies "
                    "in one split")
    else:
        sentence = f"no images in different splits {verb} ({how})"
    checks = [Check("duplicates", bool(across), sentence,
                    [images.row(pair.first, pair.second, f"{pair.bits} of {BITS} bits") for pair in across])]
    odd = [pair for pair in pairs if images.label(pair.first) != images.label(pair.second)]
    if odd:
        rows = [images.row(first, second, f"{images.label(first)} / {images.label(second)}")
                for first, second, _ in odd]
        checks.append(Check("labels", True, f"{some}{len(odd)} pairs of images that {verb} have different labels "
                            f"(such as {rows[0][1]} and {rows[0][3]}: {rows[0][4]}): correct them", rows))
    return checks


def concerns(splits: Mapping, patients: Mapping[str, str] | None = None, sources: Mapping[str, str] | None = None,
             limit_seconds: float | None = QUICK_SECONDS) -> list[str]:
    """The sentences that `train` warns with, found within `limit_seconds`. Args are those of `audit`."""
    return [check.sentence for check in audit(splits, patients, sources, limit_seconds) if check.worrying]


def images_of(splits: Mapping) -> list[str]:
    """The names of the images of all splits, in their order."""
    return [name for dataset in splits.values() for name in dataset.names]


def write_checks(path: str | os.PathLike, checks: Sequence[Check]) -> None:
    """Write the rows of all checks as one table with the columns COLUMNS."""
    write_csv(path, COLUMNS, ((check.name, *row) for check in checks for row in check.rows))


def draw_duplicates(path: str | os.PathLike, splits: Mapping, checks: Sequence[Check], most: int = 12) -> int:
    """Draw the first pairs of the same radiograph side by side, those with different labels first; how many were drawn.
    """
    order = {"labels": 0, "duplicates": 1}
    rows = [row for check in sorted(checks, key=lambda check: order.get(check.name, 2))
            for row in check.rows if check.name in order]
    chosen = list({row[:4]: row for row in rows}.values())[:most]
    place = {(split, name): index for split, dataset in splits.items() for index, name in enumerate(dataset.names)
             if any((split, name) in (row[:2], row[2:4]) for row in chosen)}
    tiles = [caption(fit(np.asarray(splits[split].picture(place[split, name]), np.uint8), 224),
                     f"{split}: {name}".encode("ascii", "replace").decode())
             for row in chosen for split, name in (row[:2], row[2:4])]
    if tiles:
        save_picture(path, montage(tiles, columns=4))
    return len(chosen)
