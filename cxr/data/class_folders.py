"""X-rays with one class each: in a folder for each class, or in lists, and the 7:2:1 split by patients.

It needs no Paddle, so that stored predictions are judged without it; the data sets are in `cxr.data.dataset`.
"""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cxr.data.images import SUFFIXES
from cxr.data.lists import LabelList, read_list
from cxr.errors import InputError
from cxr.utils.files import write_text

SPLITS = {"train": 0.7, "val": 0.2, "test": 0.1}


@dataclass(frozen=True)
class Split:
    """Which images are for training, validation and test. Making one writes nothing; only `keep` does.

    Attributes:
        origin: "given" where the user's lists say it, "kept" where those in `save_dir` do, "made" where it was made
            here and is in memory alone.
        lists: "train", "val" and, where there is one, "test" -> path of a list, or the list itself.
        class_names: what the labels stand for.
        by_patient: whether no patient is in two of the lists, for a split made here.
        notes: sentences that the user should read.
    """
    origin: str
    lists: Mapping[str, Path | LabelList]
    class_names: tuple[str, ...]
    by_patient: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What a split made here looks like, in one line without a full stop."""
        return ("Split " + ", ".join(f"{name} {len(listed.names)}" for name, listed in self.lists.items())
                + f" images of {len(self.class_names)} classes, by {'patient' if self.by_patient else 'image'}")

    def keep(self, folder: str | os.PathLike) -> Split:
        """Make the lists in `folder` those of this split: write them if it was made here.

        With the user's lists only `test.txt` is removed, which would otherwise be taken for the test list of theirs.

        Args:
            folder: for the lists, made where it is missing.

        Returns:
            The split with the paths of its lists.
        """
        if self.origin == "given":
            Path(folder, "test.txt").unlink(missing_ok=True)
        if self.origin != "made":
            return self
        pairs = {name: list(zip(listed.names, listed.labels)) for name, listed in self.lists.items()}
        return replace(self, lists=write_lists(pairs, folder))


def find_classes(data_dir: str | os.PathLike) -> dict[str, list[str]]:
    """Look for one class in each folder that holds images.

    A class folder may keep them under `images/`, as the COVID-19 Radiography Database does beside its `masks/`.

    Returns:
        Class name -> sorted image names, relative to `data_dir`.

    Raises:
        InputError: `data_dir` is no folder, or there are fewer than two classes.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise InputError(f"{root} is no folder: name the folder that holds the class folders.")
    classes = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        inner = folder / "images" if (folder / "images").is_dir() else folder
        names = sorted(path.relative_to(root).as_posix() for path in inner.iterdir() if path.suffix.lower() in SUFFIXES)
        if names:
            classes[folder.name] = names
    if len(classes) < 2:
        raise InputError(f"{root} holds {len(classes)} folders of images, and two classes are the least: name the "
                         "folder whose subfolders are the classes.")
    return classes


def split(classes: Mapping[str, Sequence[str]], patients: Mapping[str, str] | None = None,
          seed: int = 0) -> dict[str, list[tuple[str, int]]]:
    """Deal images to train, val and test, 7:2:1 in every class; all images of a patient go to the same one.

    Args:
        classes: class name -> image names.
        patients: image name -> patient; an image that is not in it counts as a patient of its own.
        seed: the same seed, names and patients always give the same lists, on every machine.

    Returns:
        Split -> sorted `(image name, class index)`.
    """
    groups: dict[str, list[tuple[str, int]]] = {}
    for index, names in enumerate(classes.values()):
        for name in names:
            patient = (patients or {}).get(name) or f"file {name}"
            groups.setdefault(patient, []).append((name, index))
    order = sorted(groups)
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda patient: -len(groups[patient]))      # the large ones first, while there is room
    sizes = np.array([len(names) for names in classes.values()], float)
    wanted = np.outer(list(SPLITS.values()), sizes)
    dealt = np.zeros_like(wanted)
    result: dict[str, list[tuple[str, int]]] = {name: [] for name in SPLITS}
    for patient in order:
        counts = Counter(index for _, index in groups[patient])
        # The split that lacks most images of the classes that this patient brings.
        room = sum(count * (wanted - dealt)[:, index] for index, count in counts.items())
        chosen = int(np.argmax(room))
        for index, count in counts.items():
            dealt[chosen, index] += count
        result[list(SPLITS)[chosen]] += groups[patient]
    return {name: sorted(items) for name, items in result.items()}


def as_label_list(pairs: Sequence[tuple[str, int]]) -> LabelList:
    """Pairs `(image name, class index)` of `split` as `read_labels` would read them from the list they are written to.

    Args:
        pairs: of one part of the split.

    Returns:
        Names, line numbers from 1, and labels (N,) int64.
    """
    return LabelList([name for name, _ in pairs], list(range(1, len(pairs) + 1)),
                     np.array([label for _, label in pairs], "int64"))


def write_lists(lists: Mapping[str, Sequence[tuple[str, int]]], folder: str | os.PathLike) -> dict[str, Path]:
    """Write each split as `NAME.txt` in the notebook's format.

    Args:
        lists: split -> `(image name, class index)`.
        folder: for the files, made where it is missing.

    Returns:
        Split -> path of its list.
    """
    paths = {}
    for name, items in lists.items():
        paths[name] = Path(folder, f"{name}.txt")
        write_text(paths[name], "".join(f"{image} {label}\n" for image, label in items))
    return paths


def read_labels(path: str | os.PathLike, class_names: Sequence[str]) -> LabelList:
    """Read a list of `FOLDER/NAME INDEX` lines. Names may contain spaces.

    Args:
        path: the list.
        class_names: what the indices stand for.

    Returns:
        Names, line numbers, and labels (N,) int64, which are indices of `class_names`.

    Raises:
        InputError: a line has no index or one outside the classes, or an image is repeated; it names the line.
    """
    names, numbers, labels = [], [], []
    seen: dict[str, int] = {}
    for number, line in read_list(path):
        name, _, label = line.rpartition(" ")
        if not name or not label.isdigit() or int(label) >= len(class_names):
            raise InputError(f"{path}, line {number}: '{line[-60:]}' is not `FOLDER/NAME INDEX` with an "
                             f"index from 0 to {len(class_names) - 1}: correct the line.")
        if name in seen:
            raise InputError(f"{path}, line {number}: {name} is listed already in line {seen[name]}: remove one of "
                             "them.")
        seen[name] = number
        names.append(name)
        numbers.append(number)
        labels.append(int(label))
    return LabelList(names, numbers, np.array(labels, "int64"))
