"""One image in; scores, maps and pictures out, for many people at once.

What the page and the HTTP service stand on; it knows neither. Memory is bounded: images are decoded and explained by
a few threads (`cxr.serving.job_queue`), and a few models are kept. Nothing of an image is kept here.
"""
from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.data.boxes import Geometry
from cxr.data.images import image_notes
from cxr.data.transforms import Preprocess
from cxr.device import apply, chosen, use
from cxr.errors import naming
from cxr.explain.explanation import Explanation, Provenance, Seen
from cxr.explain.manifest import BOX_THRESHOLD, manifest
from cxr.models.catalogue import Catalogue, Checkpoint
from cxr.models.recipe import Recipe
from cxr.serving.job_queue import Desk
from cxr.serving.loaded_model import Loaded
from cxr.serving.uploads import MAX_BYTES, MAX_PIXELS, read_upload
from cxr.visual.image_files import shrink

PICTURE_SIDE = 768                                   # of what is shown, at most


@dataclass(frozen=True)
class Limits:
    """What one service takes on.

    Attributes:
        max_bytes: of one image file.
        max_pixels: of one image.
        computing: jobs at a time.
        waiting: jobs in the line.
        models: kept in memory.
    """
    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS
    computing: int = 2
    waiting: int = 60
    models: int = 3


class Reading(Explanation):
    """An explanation of an upload with the map of every class, as (K, h, w) uint8, and what page and service ask of it.

    `seen.picture` has up to `PICTURE_SIDE` pixels a side.
    """

    @property
    def checkpoint(self) -> Checkpoint:
        """The weights."""
        return self.provenance.checkpoint

    @property
    def preprocess(self) -> Preprocess:
        """From the image to the view."""
        return self.provenance.preprocess

    @property
    def method(self) -> str:
        """Name of the CAM method in `cxr.cam.registry`."""
        return self.provenance.method

    @property
    def layer(self) -> str:
        """Dotted name of the target layer."""
        return self.provenance.layer

    @property
    def exclusive(self) -> bool:
        """Whether exactly one class is meant."""
        return self.activation == "softmax"

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Class -> probability from which on it is called; empty where none were fitted."""
        return self.operating.thresholds if self.operating else {}

    def manifest(self, box_threshold: float = BOX_THRESHOLD) -> dict:
        """What `tools/cam.py --json` writes of an image, with the boxes of every class (`cxr.explain.manifest`)."""
        return manifest(self, {}, box_threshold)


def _dynamic() -> None:
    """Paddle keeps mode and device for each thread, and a new one may find itself building static graphs."""
    from cxr.runtime import load_paddle
    load_paddle().disable_static()
    apply()


class Service:
    """Everything that many users share: checkpoints, models in memory, and the line before the processor.

    `read` and `explain` compute in the calling thread; hand them to `desk` (`desk.submit(service.read, ...)`), which
    bounds how many run at once.

    Args:
        recipes: by name, those that a checkpoint may belong to.
        folders: searched for checkpoints.
        limits: of images, jobs and models.
        engine: of `cxr.inference.ENGINES`.

    Attributes:
        device: what is computed on, chosen by `cxr.device.use` before, with its notes for whoever looks at results.
    """

    def __init__(self, recipes: Mapping[str, Recipe], folders: Sequence[Path], limits: Limits | None = None,
                 engine: str = "auto"):
        self.limits, self.engine = limits or Limits(), engine
        self.device = chosen() or use()
        self.recipes, self.catalogue = recipes, Catalogue(recipes, folders)
        # A GPU is held against the CPU with the device of the whole process changed, which no other job may see.
        computing = 1 if self.device.gpu else self.limits.computing
        self.desk = Desk(computing, self.limits.waiting, _dynamic)
        self._models: OrderedDict[Checkpoint, Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def model(self, checkpoint: Checkpoint) -> Loaded:
        """The model of a checkpoint, loaded once; the least recently used are let go.

        Raises:
            InputError: the checkpoint cannot be used.
        """
        with self._lock:                             # whoever asks for a model being loaded waits for it
            if checkpoint not in self._models:
                while len(self._models) >= self.limits.models:
                    self._models.popitem(last=False)
                self._models[checkpoint] = Loaded(self.recipes[checkpoint.recipe], checkpoint, self.engine)
            self._models.move_to_end(checkpoint)
            return self._models[checkpoint]

    def read(self, checkpoint: Checkpoint, data: bytes, name: str) -> Seen:
        """Decode an image file's content and cut out what the model sees.

        Args:
            checkpoint: of the model.
            data: the file's content.
            name: what results call the image.

        Raises:
            InputError: the image cannot be used; the sentence names it.
        """
        image = read_upload(data, name, self.limits.max_pixels, self.limits.max_bytes)
        preprocess = self.model(checkpoint).preprocess
        with naming(name):
            view = preprocess.view(image)
        left, top, width, height = Geometry.of(preprocess, image.shape[:2]).to_image((0, 0, *view.shape[1::-1]))
        rows, columns = (slice(max(0, round(start)), round(start + length))
                         for start, length in ((top, height), (left, width)))
        return Seen(name=name, sha256=hashlib.sha256(data).hexdigest(), shape=image.shape[:2], view=view,
                    picture=shrink(image[rows, columns], PICTURE_SIDE), notes=tuple(image_notes(data, name)))

    def explain(self, checkpoint: Checkpoint, seen: Seen, method: str, layer: str | None = None) -> Reading:
        """Scores and maps of all classes.

        Args:
            checkpoint: of the model.
            seen: what `read` gave for this checkpoint.
            method: of `cxr.cam.registry`.
            layer: dotted name of the target layer; None is the last one.

        Raises:
            InputError: the method or layer cannot be used.
        """
        model = self.model(checkpoint)
        layer = layer or model.last
        scores, maps = model.explain(seen.view, method, layer)
        provenance = Provenance(checkpoint=checkpoint, preprocess=model.preprocess, activation=model.activation,
                                method=method, layer=layer, operating=model.operating)
        return Reading(seen=seen, provenance=provenance, scores=scores, chosen=np.arange(len(scores)), maps=maps)
