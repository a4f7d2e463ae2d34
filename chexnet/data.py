"""ChestX-ray14 in the published list format, one line an image: `00000003_000.png 0 0 0 ... 1`."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from chexnet.labels import CLASS_NAMES
from cxr.data import XrayDataset, read_list, require_files
from cxr.errors import InputError


class ChestXrayDataSet(XrayDataset):
    """Frontal chest X-rays with one 0/1 label for every finding.

    Args:
        data_dir: folder of the images.
        image_list_file: list in the published format. A line with a wrong number of columns, a label other
            than 0 or 1, a repeated or a missing image raises `InputError` with the line number.
        transform: called on a Pillow RGB image, as in the published code, so that Paddle's own transforms
            resize as they did for the published scores. None returns the Pillow image.
        class_names: the findings in the order of the columns.

    Items are `(image, label)` with label (n_classes,) float32.
    """

    def __init__(self, data_dir: str | os.PathLike, image_list_file: str | os.PathLike,
                 transform: Callable | None = None, class_names: Sequence[str] = CLASS_NAMES, seed: int = 0):
        names, numbers, labels = [], [], []
        seen: dict[str, int] = {}
        for number, line in read_list(image_list_file):
            name, *columns = line.split()
            where = f"{image_list_file}, line {number}"
            if len(columns) != len(class_names):
                raise InputError(f"{where}: {len(columns)} labels where {len(class_names)} are needed: "
                                 "a line is `name 0 1 0 ...`, one column for each finding.")
            bad = next((column for column in columns if column not in ("0", "1")), None)
            if bad is not None:
                raise InputError(f"{where}: the label '{bad}' is neither 0 nor 1: correct the line.")
            if name in seen:
                raise InputError(f"{where}: {name} is listed already in line {seen[name]}: remove one of them.")
            seen[name] = number
            names.append(name)
            numbers.append(number)
            labels.append([column == "1" for column in columns])
        require_files(data_dir, names, numbers, image_list_file)
        super().__init__(data_dir, names, np.array(labels, "float32"), class_names, transform, seed)

    def picture(self, index: int) -> Image.Image:
        return Image.fromarray(super().picture(index))
