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
from cxr.explain.manifest import BOX_THRESHOLD, Subject, manifest
from cxr.metrics.thresholds import Operating
from cxr.models.catalogue import Catalogue, Checkpoint
from cxr.models.recipe import Recipe
from cxr.serving.job_queue import Desk
from cxr.serving.loaded_model import Loaded
from cxr.serving.uploads import MAX_BYTES, MAX_PIXELS, read_upload
from cxr.visual.image_files import shrink

PICTURE_SIDE = 768                                   # of what is shown, at most


@dataclass(frozen=True)
class Limits:
    """max_bytes, max_pixels: of one image. computing: jobs at a time. waiting: jobs in the line. models: kept."""
    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS
    computing: int = 2
    waiting: int = 60
    models: int = 3


@dataclass(frozen=True)
class Seen:
    """What a network sees of an image.

    name: as uploaded. sha256: of the file's content, hex. shape: (H, W) of the image. view: (h, w, 3) uint8, the
    network's input as a picture. picture: the same part of the image with up to `PICTURE_SIDE` pixels a side. notes:
    what the file says about itself that speaks against the use of a model (`cxr.data.images.image_notes`).
    """
    name: str
    sha256: str
    shape: tuple[int, int]
    view: np.ndarray
    picture: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """One image explained by one method.

    scores: probabilities (K,). maps: (K, h, w) uint8, on the view. activation: "sigmoid" for findings that are scored
    on their own, "softmax" for exclusive classes. operating: thresholds fitted to these weights, or None.
    """
    seen: Seen
    checkpoint: Checkpoint
    preprocess: Preprocess
    method: str
    layer: str
    scores: np.ndarray
    maps: np.ndarray
    activation: str
    operating: Operating | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.checkpoint.class_names

    @property
    def exclusive(self) -> bool:
        """Whether exactly one class is meant."""
        return self.activation == "softmax"

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Class -> probability from which on it is called; empty where none were fitted."""
        return self.operating.thresholds if self.operating else {}

    @property
    def order(self) -> np.ndarray:
        """Indices of the classes, the highest score first."""
        return np.argsort(-self.scores, kind="stable")

    def manifest(self, box_threshold: float = BOX_THRESHOLD) -> dict:
        """What `tools/cam.py --json` writes of an image, with the boxes of every class (`cxr.explain.manifest`)."""
        seen, checkpoint = self.seen, self.checkpoint
        about = {"model": {"recipe": checkpoint.recipe, "checkpoint": checkpoint.path.name,
                           "checkpoint_sha256": checkpoint.sha256, "activation": self.activation,
                           "classes": list(self.class_names), "preprocess": self.preprocess.to_dict()},
                 "method": {"name": self.method, "layer": self.layer, "aug_smooth": False, "eigen_smooth": False,
                            "scale": "class", "precision": "float32"}}
        subject = Subject(seen.name, seen.sha256, seen.notes, Geometry.of(self.preprocess, seen.shape))
        return manifest(subject, about, self.class_names, self.activation, self.scores,
                        dict(enumerate(self.maps / np.float32(255))), self.operating, {}, box_threshold)


def _dynamic() -> None:
    """Paddle keeps mode and device for each thread, and a new one may find itself building static graphs."""
    from cxr.runtime import load_paddle
    load_paddle().disable_static()
    apply()


class Service:
    """Everything that many users share: checkpoints, models in memory, and the line before the processor.

    `read` and `explain` compute in the calling thread; hand them to `desk` (`desk.submit(service.read, ...)`), which
    bounds how many run at once.

    `device`: what is computed on, chosen by `cxr.device.use` before, with its notes for whoever looks at results.
    """

    def __init__(self, recipes: Mapping[str, Recipe], folders: Sequence[Path], limits: Limits | None = None,
                 engine: str = "auto"):
        self.limits, self.engine = limits or Limits(), engine
        self.device = chosen() or use()
        self.recipes, self.catalogue = recipes, Catalogue(recipes, folders)
        self.desk = Desk(self.limits.computing, self.limits.waiting, _dynamic)
        self._models: OrderedDict[Checkpoint, Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def model(self, checkpoint: Checkpoint) -> Loaded:
        """The model of a checkpoint, loaded once; the least recently used are let go. Raises `InputError`."""
        with self._lock:                             # whoever asks for a model being loaded waits for it
            if checkpoint not in self._models:
                while len(self._models) >= self.limits.models:
                    self._models.popitem(last=False)
                self._models[checkpoint] = Loaded(self.recipes[checkpoint.recipe], checkpoint, self.engine)
            self._models.move_to_end(checkpoint)
            return self._models[checkpoint]

    def read(self, checkpoint: Checkpoint, data: bytes, name: str) -> Seen:
        """Decode an image file's content and cut out what the model sees. Raises `InputError` that names the file."""
        image = read_upload(data, name, self.limits.max_pixels, self.limits.max_bytes)
        preprocess = self.model(checkpoint).preprocess
        with naming(name):
            view = preprocess.view(image)
        left, top, width, height = Geometry.of(preprocess, image.shape[:2]).to_image((0, 0, *view.shape[1::-1]))
        rows, columns = (slice(max(0, round(start)), round(start + length))
                         for start, length in ((top, height), (left, width)))
        return Seen(name, hashlib.sha256(data).hexdigest(), image.shape[:2], view,
                    shrink(image[rows, columns], PICTURE_SIDE), tuple(image_notes(data, name)))

    def explain(self, checkpoint: Checkpoint, seen: Seen, method: str, layer: str | None = None) -> Reading:
        """Scores and maps of all classes; `layer` None is the last one. Raises `InputError`."""
        model = self.model(checkpoint)
        layer = layer or model.last
        scores, maps = model.explain(seen.view, method, layer)
        return Reading(seen, checkpoint, model.preprocess, method, layer, scores, maps, model.activation,
                       model.operating)
