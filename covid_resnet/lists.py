"""The notebook's lists, one line an image: `COVID/COVID-1.png 0`; and the table that names the patients."""
from __future__ import annotations

import csv
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


def read_patients(csv_file: str | os.PathLike) -> dict[str, str]:
    """Image name -> patient, from a table with the columns `file` and `patient`. Raises `InputError`."""
    try:
        with open(csv_file, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{csv_file} is no readable table ({error}): check the path.") from None
    if not rows or not {"file", "patient"} <= set(rows[0]):
        raise InputError(f"{csv_file} needs the columns `file` and `patient`.")
    return {row["file"]: row["patient"] for row in rows}
