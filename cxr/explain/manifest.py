"""What other programs read of an explained image: a JSON manifest, and the raw maps as `.npz`.

The manifest (schema `cxr-cam/1`) holds no patient data and no path. Boxes and places are `{x, y, width, height}` in
pixels of the original image, x and y the upper left corner, continuous as in `cxr.data.boxes`. Unknown is null.

- `schema`, `use`: `cxr-cam/1`; that it is for research only.
- `image`: `name`, `sha256` of the file, `width`, `height`, `notes` (sentences on what speaks against using it).
- `view`: the part of the image that the network saw and the maps cover.
- `model`: `recipe`, `checkpoint` (file name), `checkpoint_sha256`, `activation`, `classes`, `preprocess`.
- `method`: `name`, `layer`, `aug_smooth`, `eigen_smooth`, `scale` (of the picture), `precision` (of the network).
- `operating`: `rule`, `fitted_on` and `temperature` of the thresholds, or null.
- `findings`: every class, highest score first: `class`, `score` (0-1), `threshold`, `prevalence`, `called` (true,
  false, or null without a threshold), `boxes` (null where no map was asked for).
- `box_threshold`: a box surrounds a connected part of a map that reaches this share of its peak.
- `files`: names of what was written beside: `picture`, `guided`, `manifest`, `maps`, `dicom`.
- `versions`: `paddle-cxr`, `paddle`, `numpy`, `python`.

A box has a `score` as well, the highest value in its part, where the map of each class runs from 0 to 1.

The `.npz` holds `maps` (n, h, w) float32 at the resolution of the layer, signed and unscaled; `classes` (n,) text;
`scores` (n,); `place` (x, y, width, height) of the maps and `image_size` (height, width), in pixels of the image.
"""
from __future__ import annotations

import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxr import __version__
from cxr.cam.regions import draw_boxes
from cxr.data.boxes import Box, Geometry, clip
from cxr.metrics.thresholds import Operating, called

BOX_THRESHOLD = 0.5


@dataclass(frozen=True)
class Subject:
    """One image as the manifest tells of it: name, SHA-256 of its file, notes, and the way to the network's view."""
    name: str
    sha256: str
    notes: Sequence[str]
    geometry: Geometry


def manifest(subject: Subject, about: Mapping, class_names: Sequence[str], activation: str, scores: np.ndarray,
             maps: Mapping[int, np.ndarray], operating: Operating | None, files: Mapping[str, str],
             box_threshold: float = BOX_THRESHOLD) -> dict:
    """The manifest of one image.

    Args:
        about: `model` and `method`, as they are to stand there.
        scores: (K,) probabilities.
        maps: class index -> map (h, w) in [0, 1] of the view, for the classes that are shown.
        files: role -> name of what was written beside it.
    """
    import paddle

    geometry = subject.geometry
    limits, prevalence = (operating.thresholds, operating.prevalence) if operating else ({}, {})
    decided = called(scores, class_names, activation, operating)
    findings = []
    for k in np.argsort(-scores, kind="stable"):
        name = class_names[k]
        boxes = None if k not in maps else [
            {**_corners(clip(geometry.to_image(box), geometry.image)), "score": score}
            for box, score in draw_boxes(maps[k], box_threshold)]
        findings.append({"class": name, "score": float(scores[k]), "threshold": limits.get(name),
                         "prevalence": prevalence.get(name), "called": decided[k], "boxes": boxes})
    return {
        "schema": "cxr-cam/1", "use": "research only, not for diagnosis",
        "image": {"name": subject.name, "sha256": subject.sha256, "width": geometry.image[1],
                  "height": geometry.image[0], "notes": list(subject.notes)},
        "view": _corners(place(geometry)), **about,
        "operating": operating and {"rule": operating.rule, "fitted_on": operating.fitted_on,
                                    "temperature": operating.temperature},
        "findings": findings, "box_threshold": box_threshold, "files": dict(files),
        "versions": {"paddle-cxr": __version__, "paddle": paddle.__version__, "numpy": np.__version__,
                     "python": platform.python_version()},
    }


def place(geometry: Geometry) -> Box:
    """The part of the image that the maps cover."""
    return geometry.to_image((0, 0, geometry.view[1], geometry.view[0]))


def _corners(box: Box) -> dict[str, float]:
    return {name: round(float(value), 2) for name, value in zip(("x", "y", "width", "height"), box)}


def raw_maps(raw: np.ndarray, shown: Sequence[int], class_names: Sequence[str], scores: np.ndarray,
             geometry: Geometry) -> bytes:
    """The content of the `.npz` for maps (n, h, w) of the classes `shown`."""
    file = io.BytesIO()
    np.savez_compressed(file, maps=raw.astype(np.float32), classes=np.array([class_names[k] for k in shown]),
                        scores=scores[list(shown)].astype(np.float32), place=np.array(place(geometry), np.float64),
                        image_size=np.array(geometry.image))
    return file.getvalue()
