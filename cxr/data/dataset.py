"""One contract for every set of labelled X-rays.

A data set has `.paths`, `.names`, `.labels` (an array), `.class_names`, a length, and items
`(image, label)`. Everything downstream relies on these alone.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from paddle.io import Dataset

from cxr.data.images import read_image
from cxr.errors import naming


class XrayDataset(Dataset):
    """Images on disk with labels.

    Args:
        data_dir: folder that the names are relative to.
        names: file names below it.
        labels: array of len(names) rows.
        class_names: what the labels stand for.
        transform: called on each image; None returns the picture itself. One that says `takes_rng = True`, like
            `cxr.data.transforms.Augment`, also gets a random generator that depends on (`seed`, `epoch`, index) alone.

    Raises `InputError` for a name whose file does not exist.
    """

    def __init__(self, data_dir: str | os.PathLike, names: Sequence[str], labels: np.ndarray,
                 class_names: Sequence[str], transform: Callable | None = None, seed: int = 0):
        super().__init__()
        self.names = list(names)
        self.paths = [Path(data_dir, name) for name in self.names]
        self.labels = labels
        self.class_names = tuple(class_names)
        self.transform = transform
        self.seed = seed
        self.list_file: Path | None = None       # where names and labels came from, for reports
        self.epoch = 0                           # set by the training loop: changes the augmentation
        self.read = read_image       # or a `cxr.data.cache.ResizedImages`, whose images the transform leaves so

    def picture(self, index: int):
        """What the transform is given: the image as (H, W, 3) uint8 RGB."""
        return self.read(self.paths[index])

    def __getitem__(self, index: int):
        image, label = self.picture(index), self.labels[index]
        with naming(self.paths[index]):
            if getattr(self.transform, "takes_rng", False):
                image = self.transform(image, np.random.default_rng([self.seed, self.epoch, index]))
            elif self.transform is not None:
                image = self.transform(image)
        return image, label

    def __len__(self) -> int:
        return len(self.names)
