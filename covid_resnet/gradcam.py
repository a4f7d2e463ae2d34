"""The COVID notebook's `GradCAM` class, on top of the CAM toolbox."""
from __future__ import annotations

import os

import cv2
import numpy as np
from paddle import nn

from covid_resnet.recipe import CovidResNetRecipe
from cxr import cam
from cxr.data.transforms import Preprocess
from cxr.visual import heatmaps, image_files


class GradCAM:
    """Grad-CAM of one layer, from images as `cv2.imread` gives them.

    Args:
        model: a classifier, for example `ResNet(50, 4)` with its weights loaded.
        layer: dotted name of the target layer, `block.15` for the last block of ResNet 34 and 50.
        preprocess: what the weights were trained with.

    Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization".
    """

    def __init__(self, model: nn.Layer, layer: str, preprocess: Preprocess = CovidResNetRecipe.preprocess):
        self.method = cam.GradCAM(model, layer)
        self.preprocess = preprocess

    @staticmethod
    def show_network(model: nn.Layer) -> None:
        """Print the names that `layer` can take, with the type of each layer."""
        for name, layer in model.named_sublayers():
            print(f"{name:40} {type(layer).__name__}")

    def __call__(self, img: np.ndarray, target: int | None = None) -> np.ndarray:
        """Map of an image (H, W, 3) uint8 BGR for the class `target` (the highest by default): (h, w) float32, 0-1."""
        x = self.preprocess(cv2.cvtColor(img, cv2.COLOR_BGR2RGB))[None]
        with self.method as method:
            return method(x, targets=target)[0]

    def save(self, img: np.ndarray, file: str | os.PathLike, target: int | None = None) -> np.ndarray:
        """Write the map over the part of `img` (H, W, 3) uint8 BGR that the network sees; returns the picture, BGR."""
        heat_map = self(img, target)
        view = self.preprocess.view(cv2.cvtColor(img, cv2.COLOR_BGR2RGB))
        picture = heatmaps.overlay(view, heat_map)
        image_files.save_picture(file, picture)
        return cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
