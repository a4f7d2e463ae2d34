"""The pictures of an explanation."""
from __future__ import annotations

import numpy as np

from cxr.cam.guided import to_picture
from cxr.cam.maths import rescale, upsample
from cxr.explain.explanation import Explanation
from cxr.metrics.thresholds import remark
from cxr.visual.heatmaps import Evidence, cam_montage, caption, drawable_names, evidence_montage, montage


def heat_picture(explanation: Explanation, keeps_sign: bool) -> np.ndarray:
    """The part that the network saw, then a tile for each chosen class, by the scale of its provenance.

    Args:
        explanation: with raw maps where the scale is "shared".
        keeps_sign: whether negative evidence counts on the shared scale (a CAM method without ReLU).

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if explanation.provenance.scale == "shared":
        return _on_one_scale(explanation, keeps_sign)
    return cam_montage(explanation.seen.view, explanation.maps, _captions(explanation), _columns(explanation))


def guided_picture(explanation: Explanation) -> np.ndarray:
    """The same tiles of guided backpropagation times each map, (H, W, 3) uint8 RGB."""
    tiles = [caption(to_picture(product), text)
             for product, text in zip(explanation.products, _captions(explanation))]
    return montage([caption(explanation.seen.view, "Original"), *tiles], _columns(explanation))


def _captions(explanation: Explanation) -> list[str]:
    names = drawable_names(explanation.class_names)
    return [f"{names[k]}: {explanation.scores[k] * 100:.2f}%" for k in explanation.chosen]


def _columns(explanation: Explanation) -> int:
    return min(5, 1 + len(explanation.chosen))


def _on_one_scale(explanation: Explanation, keeps_sign: bool) -> np.ndarray:
    """The picture of `scale="shared"`: one scale for an image, whatever else was in its batch."""
    view, scores, called = explanation.seen.view, explanation.scores, explanation.called
    names = drawable_names(explanation.class_names)
    evidence = explanation.raw if keeps_sign else np.maximum(explanation.raw, 0)
    maps = rescale(upsample(evidence[None], view.shape[:2])[0], shared=True)
    tiles = sorted(zip(explanation.chosen.tolist(), maps), key=lambda tile: -scores[tile[0]])
    return evidence_montage(view, [
        Evidence(heat, f"{names[k]} {scores[k] * 100:.1f} %",
                 remark(explanation.class_names[k], scores[k], explanation.operating), called[k])
        for k, heat in tiles], _columns(explanation))
