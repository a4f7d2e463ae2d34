"""ChestX-ray14 in the published list format, one line an image: `00000003_000.png 0 0 0 ... 1`."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from chexnet.labels import CLASS_NAMES
from chexnet.lists import read_labels
from cxr.data.dataset import XrayDataset
from cxr.data.lists import require_files


class ChestXrayDataSet(XrayDataset):
    """Frontal chest X-rays with one 0/1 label for every class.

    Args:
        data_dir: folder of the images.
        image_list_file: list in the published format.
        transform: called on a Pillow RGB image, as in the published code, so that Paddle's own transforms
            resize as they did for the published scores. None returns the Pillow image.
        class_names: the classes in the order of the columns.
        seed: of the augmentation, where `transform` has one.

    Raises:
        InputError: with the line number, for a line with a wrong number of columns, a label other than 0 or 1, or a
            repeated or missing image.

    Items are `(image, label)` with label (n_classes,) float32.
    """

    def __init__(self, data_dir: str | os.PathLike, image_list_file: str | os.PathLike,
                 transform: Callable | None = None, class_names: Sequence[str] = CLASS_NAMES, seed: int = 0):
        listed = read_labels(image_list_file, class_names)
        require_files(data_dir, listed.names, listed.numbers, image_list_file)
        super().__init__(data_dir, listed.names, listed.labels, class_names, transform, seed)
        self.list_file = Path(image_list_file)

    def picture(self, index: int) -> Image.Image:
        """What the transform is given: a Pillow RGB image."""
        return Image.fromarray(super().picture(index))
