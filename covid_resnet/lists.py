"""The notebook's lists, one line an image: `COVID/COVID-1.png 0`."""
from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from cxr.data.lists import LabelList, read_list
from cxr.errors import InputError


def read_labels(path: str | os.PathLike, class_names: Sequence[str]) -> LabelList:
    """Read a list; labels are (N,) int64 indices of `class_names`. Names may contain spaces.

    A line without an index, an index outside the classes, or a repeated image raises `InputError` with the line
    number.
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
