"""Maps of several CAM methods for the same images, at the price of one forward of the network."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paddle import nn

from cxr.cam import METHODS
from cxr.data.images import read_image
from cxr.data.transforms import Preprocess
from cxr.errors import InputError, naming
from cxr.inference.predictor import EngineModel, Predictor
from cxr.utils.parallel import default_workers, grouped, ordered_map


@dataclass(frozen=True)
class MapOptions:
    """How maps are computed.

    Attributes:
        engine: of `cxr.inference.predictor.Predictor`.
        top_k: channels that ScoreCAM tries; None: all of them.
        batch_size: images at once.
        workers: threads that read images; None: one a core.
    """
    engine: str = "auto"
    top_k: int | None = 32
    batch_size: int = 8
    workers: int | None = None


def choose_methods(text: str, default: str | None = None) -> list[str]:
    """Turn `all`, or names separated by commas, into names of `cxr.cam.METHODS`.

    Args:
        text: what a user wrote.
        default: what `all` stands for, in place of every method.

    Raises:
        InputError: there is no method of that name.
    """
    if text == "all":
        return [default] if default else list(METHODS)
    chosen = list(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    wrong = next((name for name in chosen if name not in METHODS), None)
    if wrong is not None:
        raise InputError(f"--method: there is no method '{wrong}': choose from {', '.join(METHODS)}, or all.")
    return chosen


class MapMaker:
    """Computes the maps of several methods at once: `maps = MapMaker(model, methods)(x, classes)`.

    The features of the last layer, which all methods explain here, are computed once. Only ScoreCAM needs further
    forwards: `top_k` for each image, of the channels that vary most (None: of all, 1,024 for CheXNet).

    Args:
        model: has `features`, `logits`, `classifier` and `activation` (see `cxr.models.recipe`).
        methods: names of `cxr.cam.METHODS`.
        engine: of `cxr.inference.predictor.Predictor`.
        top_k: channels that ScoreCAM tries.

    Attributes:
        methods: name -> CAM method.
        titles: name -> how tables call the method.
    """

    def __init__(self, model: nn.Layer, methods: Sequence[str], engine: str = "auto", top_k: int | None = None):
        explained = EngineModel(model, _Remembering(Predictor(model, engine)))
        options = {"scorecam": {"top_k": top_k}}
        self.methods = {name: METHODS[name](explained, EngineModel.LAYER, **options.get(name, {})) for name in methods}
        self.titles = {name: f"{name} ({top_k} channels)" if name == "scorecam" and top_k else name for name in methods}

    def __call__(self, x: np.ndarray, classes: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the maps of n classes for each image.

        Args:
            x: (B, 3, H, W) float32, what the network is given.
            classes: (B, n) ints.

        Returns:
            Method -> maps (B, n, H, W) in [0, 1].
        """
        return {name: method(x, targets=classes) for name, method in self.methods.items()}


class _Remembering:
    """A predictor that does not run again for the batch that it was last given."""

    def __init__(self, predictor: Predictor):
        self._predictor, self._last = predictor, None

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._last is None or not np.array_equal(self._last[0], x):
            self._last = x, self._predictor(x)
        return self._last[1]


def read_views(paths: Sequence[Path], preprocess: Preprocess, batch_size: int,
               workers: int | None = None) -> Iterator[list[tuple[int, tuple[int, int], np.ndarray]]]:
    """Read images as the network sees them.

    Args:
        paths: of the images.
        preprocess: of the model.
        batch_size: images at once.
        workers: threads that read images; None: one a core.

    Yields:
        A batch: for each image its index, its shape (H, W) before preprocessing, and its view, (h, w, 3) uint8.
    """
    def read(index: int) -> tuple[int, tuple[int, int], np.ndarray]:
        with naming(paths[index]):
            image = read_image(paths[index])
            return index, image.shape[:2], preprocess.view(image)

    workers = default_workers() if workers is None else workers
    yield from grouped(ordered_map(read, range(len(paths)), workers, ahead=2 * batch_size), batch_size)


def pad_classes(classes: Sequence[Sequence[int]]) -> np.ndarray:
    """Turn the class indices of each image, of which some have more than others, into (B, n).

    Short rows repeat their first index.
    """
    most = max(map(len, classes))
    return np.array([[*row, *[row[0]] * (most - len(row))] for row in classes])
