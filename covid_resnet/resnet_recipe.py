"""What the recipes on the ResNet have in common."""
from __future__ import annotations

from cxr.models.recipe import Recipe


class ResNetRecipe(Recipe):
    activation = "softmax"

    def build(self, n_classes: int, layers: int = 50):
        from covid_resnet.resnet import ResNet
        return ResNet(layers, n_classes)

    def add_arch_arguments(self, parser) -> None:
        parser.add_argument("--layers", type=int, choices=(18, 34, 50, 101, 152),
                            help=f"size of the ResNet (default: {self.arch['layers']})")

    def layouts(self) -> list:
        from covid_resnet.convert import layouts
        return layouts()

    def layer(self, model) -> str:
        return model.last_block

    def read_labels(self, path, class_names):
        from cxr.data.class_folders import read_labels
        return read_labels(path, class_names)
