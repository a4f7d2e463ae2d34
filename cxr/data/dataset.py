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

from cxr.data.class_folders import find_classes, read_labels
from cxr.data.images import read_image
from cxr.data.lists import LabelList, require_files
from cxr.errors import InputError, naming


class XrayDataset(Dataset):
    """Images on disk with labels.

    Args:
        data_dir: folder that the names are relative to.
        names: file names below it.
        labels: array of len(names) rows.
        class_names: what the labels stand for.
        transform: called on each image; None returns the picture itself. One that says `takes_rng = True`, like
            `cxr.data.transforms.Augment`, also gets a random generator that depends on (`seed`, `epoch`, index) alone.
        seed: of that generator, >= 0.

    Attributes:
        list_file: where names and labels came from, for reports; None where they were given in memory.
        epoch: set by the training loop: it changes the augmentation.
        read: gives the image of a path: `read_image`, or a `cxr.data.cache.ResizedImages`, whose images the transform
            does not resize again.
    """

    def __init__(self, data_dir: str | os.PathLike, names: Sequence[str], labels: np.ndarray,
                 class_names: Sequence[str], transform: Callable | None = None, seed: int = 0) -> None:
        super().__init__()
        self.names = list(names)
        self.paths = [Path(data_dir, name) for name in self.names]
        self.labels = labels
        self.class_names = tuple(class_names)
        self.transform = transform
        self.seed = seed
        self.list_file: Path | None = None
        self.epoch = 0
        self.read: Callable[[Path], np.ndarray] = read_image

    def picture(self, index: int) -> np.ndarray:
        """What the transform is given: the image as (H, W, 3) uint8 RGB.

        Raises:
            InputError: as `cxr.data.images.read_image`, also where the file does not exist.
        """
        return self.read(self.paths[index])

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray | np.generic]:
        """`(image, label)`: what the transform made of the picture, and the row of `.labels`.

        Raises:
            InputError: the image cannot be read or transformed; it names the file.
        """
        image, label = self.picture(index), self.labels[index]
        with naming(self.paths[index]):
            if getattr(self.transform, "takes_rng", False):
                image = self.transform(image, np.random.default_rng([self.seed, self.epoch, index]))
            elif self.transform is not None:
                image = self.transform(image)
        return image, label

    def __len__(self) -> int:
        return len(self.names)


class ListedDataset(XrayDataset):
    """X-rays with one class each, from a list of `FOLDER/NAME.png INDEX` lines.

    Items are `(image, label)` with label (1,) int64; `.labels` is (N,) int64.

    Args:
        base_dir: folder that the names in the list are relative to.
        label_path: the list, in which names may contain spaces; or a list in memory, of images that are there.
        class_names: what the indices stand for.
        transform: called on (H, W, 3) uint8 RGB.
        seed: as of `XrayDataset`.

    Raises:
        InputError: names the line that has no index, one outside the classes, or an image that does not exist; or a
            list in memory is empty.
    """

    def __init__(self, base_dir: str | os.PathLike, label_path: str | os.PathLike | LabelList,
                 class_names: Sequence[str], transform: Callable | None = None, seed: int = 0) -> None:
        in_memory = isinstance(label_path, LabelList)
        listed = label_path if in_memory else read_labels(label_path, class_names)
        if not listed.names:                     # of a file `read_labels` has said so
            raise InputError("too few images to split: one of the lists has none.")
        if not in_memory:
            require_files(base_dir, listed.names, listed.numbers, label_path)
        super().__init__(base_dir, listed.names, listed.labels, class_names, transform, seed)
        self.list_file = None if in_memory else Path(label_path)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """As `XrayDataset` gives it, with label (1,) int64."""
        image, label = super().__getitem__(index)
        return image, np.array([label])


class FolderDataset(XrayDataset):
    """X-rays in one folder for each class: `data_dir/NORMAL/*.jpeg`, `data_dir/PNEUMONIA/*.jpeg`.

    Items are `(image, label)` with label (1,) int64; `.labels` is (N,) int64.

    Args:
        data_dir: folder of the class folders.
        class_names: what the folders must be; None takes those that are there, sorted.
        transform: called on (H, W, 3) uint8 RGB.
        seed: as of `XrayDataset`.

    Raises:
        InputError: the folders are other ones, or fewer than two.
    """

    def __init__(self, data_dir: str | os.PathLike, class_names: Sequence[str] | None = None,
                 transform: Callable | None = None, seed: int = 0) -> None:
        classes = find_classes(data_dir)
        if class_names is not None and sorted(class_names) != sorted(classes):
            raise InputError(f"{data_dir} holds the classes {', '.join(classes)} where {', '.join(class_names)} are "
                             "needed: name the folders alike.")
        order = tuple(class_names or classes)
        names = [name for folder in order for name in classes[folder]]
        labels = np.repeat(np.arange(len(order)), [len(classes[folder]) for folder in order])
        super().__init__(data_dir, names, labels, order, transform, seed)
        self.list_file = Path(data_dir)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """As `XrayDataset` gives it, with label (1,) int64."""
        image, label = super().__getitem__(index)
        return image, np.array([label])


def check_folders(dataset: ListedDataset, label_path: str | os.PathLike) -> None:
    """Refuse a list that puts an image of one class folder under another class's index.

    Args:
        dataset: read from the list.
        label_path: the list, for the sentence.

    Raises:
        InputError: names the first such image.
    """
    for name, label in zip(dataset.names, dataset.labels):
        folder = name.split("/")[0]
        if folder in dataset.class_names and folder != dataset.class_names[label]:
            raise InputError(f"{label_path} gives {name} the index {label}, which is {dataset.class_names[label]}: "
                             f"number the classes in the order {', '.join(dataset.class_names)}.")
