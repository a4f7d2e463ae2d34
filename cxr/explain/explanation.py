"""One image explained: what the network saw, what explained it, and the result. Command and service share it."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.data.boxes import Geometry
from cxr.data.transforms import Preprocess
from cxr.metrics.thresholds import Operating, called
from cxr.models.catalogue import Checkpoint

if TYPE_CHECKING:                                    # an extra, which only the DICOM export needs
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Seen:
    """What a network sees of an image.

    Attributes:
        name: what results call the image; never a path of this machine.
        sha256: of the file's content, in hex; empty where nobody asked for it.
        shape: (H, W) of the image.
        view: (h, w, 3) uint8, the network's input as a picture.
        picture: the same part of the image in more pixels, for people; None where it is not shown.
        notes: what the file says about itself that speaks against the use of a model (`image_notes`).
        path: the file; None for an upload.
        origin: what a DICOM export needs to know of the file (`cxr.explain.secondary_capture.origin`), or None.
    """
    name: str
    sha256: str
    shape: tuple[int, int]
    view: np.ndarray
    picture: np.ndarray | None = None
    notes: Sequence[str] = ()
    path: Path | None = None
    origin: Dataset | None = None


@dataclass(frozen=True)
class Provenance:
    """What explanations come from: the model, its thresholds, and how the method was called.

    Attributes:
        checkpoint: the weights, and the names of the classes.
        preprocess: what the model was trained with.
        activation: "sigmoid" for findings that are scored on their own, "softmax" for exclusive classes.
        method: name in `cxr.cam.registry`.
        layer: dotted name of the target layer.
        operating: thresholds and prevalence fitted to these weights, or None.
        aug_smooth: whether maps are averaged over mirrored and scaled versions.
        eigen_smooth: whether maps are reduced to their first principal component.
        scale: "class" stretches every map of a picture to the whole colour range, as published. "shared" puts all
            classes of an image on one scale, the highest score first, and leaves those plain that are not called.
        precision: of the network.
    """
    checkpoint: Checkpoint
    preprocess: Preprocess
    activation: str
    method: str
    layer: str
    operating: Operating | None = None
    aug_smooth: bool = False
    eigen_smooth: bool = False
    scale: str = "class"
    precision: str = "float32"

    def about(self) -> dict[str, dict]:
        """`model` and `method` of the manifest."""
        checkpoint = self.checkpoint
        return {"model": {"recipe": checkpoint.recipe, "checkpoint": checkpoint.path.name,
                          "checkpoint_sha256": checkpoint.sha256, "activation": self.activation,
                          "classes": list(checkpoint.class_names), "preprocess": self.preprocess.to_dict()},
                "method": {"name": self.method, "layer": self.layer, "aug_smooth": self.aug_smooth,
                           "eigen_smooth": self.eigen_smooth, "scale": self.scale, "precision": self.precision}}


@dataclass(frozen=True)
class Explanation:
    """One image explained by one method.

    Attributes:
        seen: the image.
        provenance: what explained it.
        scores: (K,) probabilities.
        chosen: (n,) indices of the classes that have a map.
        maps: (n, h, w) of the view: float in [0, 1], or uint8 with 255 for 1.
        raw: (n, h', w') maps at the resolution of the layer, signed and unscaled; None where nobody asked.
        products: (n, h, w, 3) guided gradients times each map, or None.
    """
    seen: Seen
    provenance: Provenance
    scores: np.ndarray
    chosen: np.ndarray
    maps: np.ndarray
    raw: np.ndarray | None = None
    products: np.ndarray | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names."""
        return self.provenance.checkpoint.class_names

    @property
    def activation(self) -> str:
        """"sigmoid" or "softmax"."""
        return self.provenance.activation

    @property
    def operating(self) -> Operating | None:
        """Thresholds and prevalence fitted to the weights."""
        return self.provenance.operating

    @property
    def geometry(self) -> Geometry:
        """The way between the image and the view."""
        return Geometry.of(self.provenance.preprocess, self.seen.shape)

    @property
    def order(self) -> np.ndarray:
        """Indices of the K classes, the highest score first."""
        return np.argsort(-self.scores, kind="stable")

    @property
    def called(self) -> list[bool | None]:
        """Of each class whether it is called; None without a threshold (`cxr.metrics.thresholds.called`)."""
        return called(self.scores, self.class_names, self.activation, self.operating)
