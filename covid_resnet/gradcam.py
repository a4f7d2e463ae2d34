"""The COVID notebook's `GradCAM` class, on top of the CAM toolbox."""
from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np
from paddle import nn

from covid_resnet.recipe import CovidResNetRecipe
from cxr import cam
from cxr.data.transforms import Preprocess
from cxr.errors import InputError
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
        """The map of one image.

        Args:
            img: (H, W, 3) uint8 BGR.
            target: index of the class, by default the one with the highest score.

        Returns:
            (h, w) float32, 0-1, of the size that the network sees.
        """
        x = self.preprocess(cv2.cvtColor(img, cv2.COLOR_BGR2RGB))[None]
        with self.method as method:
            return method(x, targets=target)[0]

    def save(self, img: np.ndarray, file: str | os.PathLike, target: int | None = None) -> np.ndarray:
        """Write the heat map of one image: its map over the part of it that the network sees.

        Args:
            img: (H, W, 3) uint8 BGR.
            file: the picture to write.
            target: index of the class, by default the one with the highest score.

        Returns:
            The picture (h, w, 3) uint8 BGR.
        """
        saliency = self(img, target)
        view = self.preprocess.view(cv2.cvtColor(img, cv2.COLOR_BGR2RGB))
        picture = heatmaps.overlay(view, saliency)
        image_files.save_picture(file, picture)
        return cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)


def show_grid(images: Sequence[np.ndarray], cams: Sequence[np.ndarray], side: int = 224) -> np.ndarray:
    """The COVID notebook's 4 x 4 grid: up to eight X-rays, and below them in the same order their Grad-CAM pictures.

    Args:
        images: (H, W, 3) uint8 RGB each, of any size.
        cams: as many pictures, likewise.
        side: of the square, in pixels, that each is fitted into.

    Returns:
        The grid, uint8 RGB.

    Raises:
        InputError: for no images, or another number of pictures.
    """
    if not len(images) or len(images) != len(cams):
        raise InputError(f"a grid needs as many CAM pictures as X-rays, and at least one; got {len(cams)} and "
                         f"{len(images)}.")

    def rows(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        tiles = [image_files.fit(picture, side) for picture in pictures[:8]]
        return tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
    return heatmaps.montage(rows(images) + rows(cams), columns=4)
