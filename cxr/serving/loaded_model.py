"""A checkpoint in memory, which explains one image at a time to all who ask."""
from __future__ import annotations

import threading

import numpy as np

from cxr.errors import InputError
from cxr.models.catalogue import Checkpoint
from cxr.models.recipe import Recipe
from cxr.models.restore import restore
from cxr.utils.files import sha256

SLOW_CHANNELS = 64                                   # what ScoreCAM may try for one image: a forward pass each


class Loaded:
    """A checkpoint in memory: shared by all who use it, explaining one image at a time.

    Args:
        recipe: that the checkpoint belongs to.
        checkpoint: the weights.
        engine: of `cxr.inference.ENGINES`.

    Attributes:
        layers: names of the target layers with their output shapes (C, h, w), the last one (the default) first.
        operating: thresholds fitted to these weights, or None (`cxr.metrics.thresholds`).

    Raises:
        InputError: the file cannot be used, or is no longer the one that was listed.
    """

    def __init__(self, recipe: Recipe, checkpoint: Checkpoint, engine: str = "auto"):
        from cxr.cam import list_layers
        from cxr.inference.predictor import EngineModel, Predictor
        from cxr.metrics.thresholds import read_operating

        if sha256(checkpoint.path) != checkpoint.sha256:
            raise InputError(f"{checkpoint.path} has changed since it was listed: load the page again.")
        restored = restore(recipe, checkpoint.path, recipe.cam_preprocess, recipe.arch)
        self.checkpoint, self.preprocess = checkpoint, restored.preprocess
        self.class_names = restored.class_names
        self.model, self.activation = restored.model, restored.model.activation
        self.last = recipe.layer(self.model)
        self.default_method = recipe.method
        maps = [(name, shape[1:]) for name, _, shape in list_layers(self.model, self.preprocess.input_shape)
                if shape is not None and len(shape) == 4 and shape[2] * shape[3] > 1]
        self.layers = dict(sorted(maps, key=lambda layer: layer[0] != self.last))
        self.operating = read_operating(checkpoint.path)
        self._fast = None if engine == "dygraph" else EngineModel(self.model, Predictor(self.model, engine))
        self._lock = threading.Lock()                # hooks on the model, and the engine's buffers

    def explain(self, view: np.ndarray, method: str, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """Scores and maps of all classes for one view.

        Args:
            view: (h, w, 3) uint8.
            method: of `cxr.cam.registry`; ScoreCAM tries the `SLOW_CHANNELS` channels that vary most.
            layer: dotted name of the target layer.

        Returns:
            Probabilities (K,) float, and maps (K, h, w) uint8, 255 at the strongest place of each class.

        Raises:
            InputError: the method or layer does not exist, the layer gives no map, or it is AblationCAM before the
                last layer, where it takes a forward pass for every channel.
        """
        from cxr.cam import METHODS
        from cxr.metrics.classification import scores_from_logits

        if method not in METHODS:
            raise InputError(f"there is no method '{method}': choose from {', '.join(METHODS)}.")
        if method == "ablationcam" and layer != self.last:
            raise InputError(f"AblationCAM is offered for the last layer ({self.last}) alone: at another one it takes "
                             "a forward for every channel.")
        model, target = (self._fast, self._fast.LAYER) if self._fast and layer == self.last else (self.model, layer)
        options = {"top_k": SLOW_CHANNELS} if method == "scorecam" else {}
        with self._lock, METHODS[method](model, target, **options) as cam:
            maps = cam(self.preprocess.to_input(view)[None], targets="all")[0]
            scores = scores_from_logits(cam.scores.numpy()[:, None], self.activation)[0]
        return scores, np.round(maps * 255).astype(np.uint8)
