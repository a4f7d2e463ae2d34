"""Maps of several CAM methods for the same images, at the price of one forward of the network."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cxr.cam import METHODS
from cxr.data.images import read_image
from cxr.data.transforms import Preprocess
from cxr.errors import InputError, naming
from cxr.inference.predictor import EngineModel, Predictor
from cxr.utils.parallel import default_workers, grouped, ordered_map


def choose_methods(text: str, default: str | None = None) -> list[str]:
    """`all`, or names separated by commas, to names of `cxr.cam.METHODS`; raises `InputError` on others.

    default: what `all` stands for, in place of all of them.
    """
    if text == "all":
        return [default] if default else list(METHODS)
    chosen = list(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    wrong = next((name for name in chosen if name not in METHODS), None)
    if wrong is not None:
        raise InputError(f"--method: there is no method '{wrong}': choose from {', '.join(METHODS)}, or all.")
    return chosen


class MapMaker:
    """`maps = MapMaker(model, methods)(x, classes)`: for each method (B, n, H, W) in [0, 1], n classes for each image.

    The features of the last layer, which all methods explain here, are computed once. ScoreCAM alone needs further
    forwards: `top_k` of each image, the channels that vary most (None: all, 1,024 for CheXNet).

    Args:
        model: has `features`, `logits`, `classifier` and `activation` (see `cxr.models.recipe`).
        methods: names of `cxr.cam.METHODS`.
        engine: of `cxr.inference.predictor.Predictor`.
    """

    def __init__(self, model, methods: Sequence[str], engine: str = "auto", top_k: int | None = None):
        explained = EngineModel(model, _Remembering(Predictor(model, engine)))
        options = {"scorecam": {"top_k": top_k}}
        self.methods = {name: METHODS[name](explained, EngineModel.LAYER, **options.get(name, {})) for name in methods}
        self.titles = {name: f"{name} ({top_k} channels)" if name == "scorecam" and top_k else name for name in methods}

    def __call__(self, x: np.ndarray, classes: np.ndarray) -> dict[str, np.ndarray]:
        """x (B, 3, H, W) float32; classes (B, n) ints."""
        return {name: method(x, targets=classes) for name, method in self.methods.items()}


class _Remembering:
    """A predictor that does not run again for the batch that it was asked about last."""

    def __init__(self, predictor: Predictor):
        self._predictor, self._last = predictor, None

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._last is None or not np.array_equal(self._last[0], x):
            self._last = x, self._predictor(x)
        return self._last[1]


def read_views(paths: Sequence[Path], preprocess: Preprocess, batch_size: int,
               workers: int | None = None) -> Iterator[list[tuple[int, tuple[int, int], np.ndarray]]]:
    """Batches of `(index, shape of the image, view)`: what the network sees of each image, (h, w, 3) uint8."""
    def read(index: int):
        with naming(paths[index]):
            image = read_image(paths[index])
            return index, image.shape[:2], preprocess.view(image)

    workers = default_workers() if workers is None else workers
    yield from grouped(ordered_map(read, range(len(paths)), workers, ahead=2 * batch_size), batch_size)


def pad_classes(classes: Sequence[Sequence[int]]) -> np.ndarray:
    """Class indices of each image, of different number, as (B, n): short rows repeat their first."""
    most = max(map(len, classes))
    return np.array([[*row, *[row[0]] * (most - len(row))] for row in classes])
