"""The CAM methods by name, in the order in which they are listed. Imports no Paddle, so that `--help` is quick."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A CAM method.

    Attributes:
        class_name: of its class in `cxr.cam.methods`.
        title: its name for people.
    """
    class_name: str
    title: str


REGISTRY = {
    "cam": Method("CAM", "CAM"),
    "gradcam": Method("GradCAM", "Grad-CAM"),
    "gradcam++": Method("GradCAMPlusPlus", "Grad-CAM++"),
    "scorecam": Method("ScoreCAM", "Score-CAM"),
    "xgradcam": Method("XGradCAM", "XGrad-CAM"),
    "ablationcam": Method("AblationCAM", "Ablation-CAM"),
    "eigencam": Method("EigenCAM", "Eigen-CAM"),
    "eigengradcam": Method("EigenGradCAM", "Eigen-Grad-CAM"),
    "layercam": Method("LayerCAM", "LayerCAM"),
}

METHOD_NAMES = {name: method.title for name, method in REGISTRY.items()}
