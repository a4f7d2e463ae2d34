"""The data set of the COVID notebook, and the mean and standard deviation of its images."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from covid_resnet.labels import CLASS_NAMES
from cxr.data.dataset import ListedDataset
from cxr.data.images import read_image
from cxr.data.lists import LabelList
from cxr.errors import InputError


class CovidDataset(ListedDataset):
    """X-rays with one class each, from a list of `FOLDER/NAME.png INDEX` lines.

    Args:
        base_dir: folder that the names in the list are relative to.
        label_path: the list, a file or, for images that are known to exist, in memory. Names may contain spaces.
        transform: called on (H, W, 3) float32 RGB, 0-255, as in the notebook (where Paddle's `ToTensor` then
            leaves the range alone).
        class_names: what the indices stand for.
        seed: of the augmentation, where `transform` has one.

    Raises:
        InputError: with the line number, for a line without an index, an index outside the classes, or a missing image.

    Items are `(image, label)` with label (1,) int64; `.labels` is (N,) int64.
    """

    def __init__(self, base_dir: str | os.PathLike, label_path: str | os.PathLike | LabelList,
                 transform: Callable | None = None, class_names: Sequence[str] = CLASS_NAMES, seed: int = 0):
        super().__init__(base_dir, label_path, class_names, transform, seed)

    def picture(self, index: int) -> np.ndarray:
        """What the transform is given: (H, W, 3) float32 RGB, 0-255."""
        return super().picture(index).astype("float32")


def get_mean_std(img_paths: Iterable[str | os.PathLike]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each RGB channel, of pixels 0-255, in one pass with one image in memory.

    As in the notebook both are averages over the images, so the second is the spread within an image, smaller
    than that of all pixels together.

    Args:
        img_paths: the images.

    Returns:
        Mean and standard deviation, (3,) float64 each.

    Raises:
        InputError: for an empty list, or an image that cannot be read.
    """
    count, mean, std = 0, np.zeros(3), np.zeros(3)
    for path in img_paths:
        pixels = read_image(path).reshape(-1, 3)
        mean += pixels.mean(axis=0)
        std += pixels.std(axis=0)
        count += 1
    if not count:
        raise InputError("the list of images is empty: there is nothing to average.")
    return mean / count, std / count
