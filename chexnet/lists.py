"""The published list format of ChestX-ray14, one line an image: `00000003_000.png 0 0 0 ... 1`."""
from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

from cxr.data.lists import LabelList, read_list
from cxr.errors import InputError


def read_labels(path: str | os.PathLike, class_names: Sequence[str]) -> LabelList:
    """Read a list in the published format.

    Args:
        path: the list.
        class_names: the classes in the order of the columns.

    Returns:
        The list, its labels (N, n_classes) float32 of 0 and 1.

    Raises:
        InputError: with the line number, for a line with a wrong number of columns, a label other than 0 or 1, or a
            repeated image.
    """
    names, numbers, labels = [], [], []
    seen: dict[str, int] = {}
    for number, line in read_list(path):
        name, *columns = line.split()
        where = f"{path}, line {number}"
        if len(columns) != len(class_names):
            raise InputError(f"{where}: {len(columns)} labels where {len(class_names)} are needed: "
                             "a line is `name 0 1 0 ...`, one column for each class.")
        bad = next((column for column in columns if column not in ("0", "1")), None)
        if bad is not None:
            raise InputError(f"{where}: the label '{bad}' is neither 0 nor 1: correct the line.")
        if name in seen:
            raise InputError(f"{where}: {name} is listed already in line {seen[name]}: remove one of them.")
        seen[name] = number
        names.append(name)
        numbers.append(number)
        labels.append([column == "1" for column in columns])
    return LabelList(names, numbers, np.array(labels, "float32"))


def patient_of(name: str) -> str:
    """The patient of an image of ChestX-ray14: `00000001` of `00000001_000.png`, also below a folder.

    A name of another form says nothing about patients and is returned as it is.
    """
    found = re.search(r"(?:^|[/\\])(\d{8})_\d{3}\.\w+$", name)
    return found[1] if found else name
