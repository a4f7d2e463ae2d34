"""What the recipes on the ResNet have in common."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cxr.data.lists import LabelList
from cxr.models.recipe import Recipe

if TYPE_CHECKING:                                # so that --help need not wait for Paddle
    from covid_resnet.resnet import ResNet
    from cxr.models.convert import Layout


class ResNetRecipe(Recipe):
    """Network, layouts of its weights, target layer, and lists of exclusive classes."""

    activation = "softmax"

    def build(self, n_classes: int, layers: int = 50) -> ResNet:
        from covid_resnet.resnet import ResNet
        return ResNet(layers, n_classes)

    def add_arch_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--layers", type=int, choices=(18, 34, 50, 101, 152),
                            help=f"number of layers of the ResNet (default: {self.arch['layers']})")

    def layouts(self) -> list[Layout]:
        from covid_resnet.convert import layouts
        return layouts()

    def layer(self, model: ResNet) -> str:
        return model.last_block

    def read_labels(self, path: str | os.PathLike, class_names: Sequence[str]) -> LabelList:
        from cxr.data.class_folders import read_labels
        return read_labels(path, class_names)
