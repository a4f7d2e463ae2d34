"""One contract for every set of labelled X-rays, and the list files that make one.

A data set has `.paths`, `.names`, `.labels` (an array), `.class_names`, a length, and items
`(image, label)`. Everything downstream relies on these alone.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from paddle.io import Dataset

from cxr.errors import InputError, naming
from cxr.images import read_image


class XrayDataset(Dataset):
    """Images on disk with labels.

    Args:
        data_dir: folder that the names are relative to.
        names: file names below it.
        labels: array of len(names) rows.
        class_names: what the labels stand for.
        transform: called on each image; None returns the picture itself. One that says `takes_rng = True`, like
            `cxr.preprocess.Augment`, also gets a random generator that depends on (`seed`, `epoch`, index) alone.

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
        self.epoch = 0                           # set by the training loop: changes the augmentation
        self.read = read_image                   # or a `cxr.cache.ResizedImages`, whose images the transform leaves so

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


def read_list(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """`(line number, line)` of the non-empty lines of a list file. Raises `InputError` if it has none."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path of the list.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no readable text file ({error}): check the path of the list.") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty: a list needs one image a line.")
    return iter(lines)


def require_files(data_dir: str | os.PathLike, names: Sequence[str], numbers: Sequence[int],
                  list_file: str | os.PathLike) -> None:
    """Raise `InputError` naming the first missing file with its line number, and how many are missing."""
    # One listing of each folder: asking for 112,120 files one by one takes minutes on network disks.
    listed: dict[Path, set[str]] = {}
    missing = []
    for number, name in zip(numbers, names):
        path = Path(data_dir, name)
        if path.parent not in listed:
            listed[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
        if path.name not in listed[path.parent]:
            missing.append((number, path))
    if missing:
        number, path = missing[0]
        more = f" (and {len(missing) - 1} more of {len(names)} are missing)" if len(missing) > 1 else ""
        raise InputError(f"{list_file}, line {number}: {path} does not exist{more}: check --data_dir.")


