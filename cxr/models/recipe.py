"""What makes a model of this project: one small object for each.

A new model is a new folder with a `recipe.py` whose `RECIPES` lists objects of this class; the commands in
`tools/` find it there. Importing a recipe must stay quick: Paddle is imported inside the methods.
"""
from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxr.data.lists import LabelList
from cxr.data.transforms import Preprocess
from cxr.errors import InputError
from cxr.metrics.published import PublishedFigures
from cxr.weights.download import Download

if TYPE_CHECKING:                                # so that --help need not wait for Paddle and what reads images
    from paddle import Tensor
    from paddle.nn import Layer
    from paddle.optimizer import Optimizer
    from paddle.optimizer.lr import LRScheduler

    from cxr.data.class_folders import Split
    from cxr.data.dataset import XrayDataset
    from cxr.models.convert import Layout


@dataclass(frozen=True)
class TrainDefaults:
    """Published training settings.

    Attributes:
        epoch: how often all training images are shown.
        batch_size: images at once, in each process.
        learning_rate: the highest of the schedule.
        monitor: figure that the best checkpoint is chosen by.
        patience: epochs without improvement before training stops; None trains all.
        freeze: train the classifier alone.
        augmentation: what `Recipe.augment` adds to `preprocess`, for --help.
    """
    epoch: int
    batch_size: int
    learning_rate: float
    monitor: str = "accuracy"
    patience: int | None = None
    freeze: bool = False
    augmentation: str = "none"


class Recipe:
    """Model, labels, preprocessing, target layer and schedule of one published work.

    The model it builds has `features(x)`, `logits(features)`, `head(features)`, `classifier` and `activation`
    ("sigmoid" for findings that are scored on their own, "softmax" for exclusive classes).
    """

    name: ClassVar[str]
    summary: ClassVar[str]                         # one sentence for --help
    class_names: ClassVar[Sequence[str]]
    translations: ClassVar[Mapping[str, Mapping[str, str]]] = {}     # language -> class name -> its name there
    arch: ClassVar[Mapping[str, Any]]              # options of `build` where neither user nor checkpoint say
    preprocess: ClassVar[Preprocess]               # of training and evaluation
    cam_preprocess: ClassVar[Preprocess]           # of the published CAM pictures, for bare published files
    method: ClassVar[str]                          # default CAM method
    classes: ClassVar[str]                         # default of `cam --classes`: all or top
    defaults: ClassVar[TrainDefaults]
    published: ClassVar[Path | None]               # where the published weights are expected
    published_source: ClassVar[str]                # where to get them
    downloads: ClassVar[Sequence[Download]] = ()  # what `tools/fetch_weights.py` can fetch
    activation: ClassVar[str]                      # of the model: sigmoid or softmax
    published_figures: ClassVar[Sequence[PublishedFigures]] = ()
    box_size: ClassVar[int | None] = None          # side of the square image that expert boxes refer to, or the file
    box_aliases: ClassVar[Mapping[str, str]] = {}  # class names in lists of expert boxes -> ours

    def build(self, n_classes: int, **arch: Any) -> Layer:
        """A new model.

        Args:
            n_classes: the number of its outputs.
            arch: options, those of `arch`.

        Raises:
            InputError: an option does not exist.
        """
        raise NotImplementedError

    def add_arch_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags that choose among the recipe's architectures, named like the keys of `arch`."""
        raise NotImplementedError

    def arch_of(self, args: argparse.Namespace) -> dict[str, Any]:
        """`arch` with what the flags say otherwise."""
        return {**self.arch, **{name: getattr(args, name) for name in self.arch if getattr(args, name) is not None}}

    def layer(self, model: Layer) -> str:
        """Dotted name of the default CAM target layer of `model`: the one whose output is `features(x)`."""
        raise NotImplementedError

    def add_train_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags that only this recipe's `train` has: its data and its schedule."""
        raise NotImplementedError

    def add_test_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags that only this recipe's `eval` has."""
        raise NotImplementedError

    def split(self, args: argparse.Namespace) -> Split | None:
        """Which images are for what, for the parsed flags; None where the flags alone say it. Writes nothing."""
        return None

    def train_sets(self, args: argparse.Namespace, split: Split | None = None) -> tuple[XrayDataset, XrayDataset]:
        """`(training set, validation set)` for the parsed flags, transforms not yet set. Writes nothing.

        Args:
            args: the flags of `train`.
            split: what `split` gave, so that it is not computed again.

        Raises:
            InputError: the flags or the lists cannot be used.
        """
        raise NotImplementedError

    def test_set(self, args: argparse.Namespace, class_names: Sequence[str], ckpt: Path,
                 split: Split | None = None) -> XrayDataset:
        """The set to evaluate on for the parsed flags, transform not yet set.

        Args:
            args: the flags of `eval`.
            class_names: those of the model.
            ckpt: its weights file, beside which `train` leaves its lists.
            split: whose test set it is, in place of the one that belongs to `ckpt`.

        Raises:
            InputError: the flags or the list cannot be used.
        """
        raise NotImplementedError

    def val_set(self, args: argparse.Namespace, class_names: Sequence[str], ckpt: Path) -> XrayDataset:
        """The set to fit thresholds and temperature on for the parsed flags, transform not yet set.

        Args:
            args: the flags of `eval`.
            class_names: those of the model.
            ckpt: its weights file, beside which `train` leaves its lists.

        Raises:
            InputError: the flags or the list cannot be used.
        """
        raise NotImplementedError

    def read_labels(self, path: str | os.PathLike, class_names: Sequence[str]) -> LabelList:
        """A list of labelled images in the recipe's format, without looking for the images.

        Args:
            path: the list.
            class_names: what its labels stand for.

        Raises:
            InputError: names the line that is not in this format.
        """
        raise NotImplementedError

    def patients(self, args: argparse.Namespace, names: Sequence[str]) -> list[str]:
        """The patient of each image, for `eval`'s parsed flags; where it is not known, the image's own name."""
        return list(names)

    def optimizer(self, args: argparse.Namespace, parameters: Sequence[Tensor],
                  steps_per_epoch: int) -> tuple[Optimizer, LRScheduler]:
        """What changes the weights in training.

        Args:
            args: the flags of `train`.
            parameters: what training changes.
            steps_per_epoch: of the optimizer.

        Returns:
            `(optimizer, scheduler)`; the scheduler is stepped once a step of the optimizer.
        """
        raise NotImplementedError

    def augment(self, preprocess: Preprocess) -> Callable:
        """The transform of the training images."""
        raise NotImplementedError

    def layouts(self) -> Sequence[Layout]:
        """The `cxr.models.convert.Layout`s of this model's weights, ours first, for `tools/convert.py`."""
        raise NotImplementedError

    def check_checkpoint(self, path: Path) -> None:
        """Look whether it is the published weights that are missing.

        Raises:
            InputError: it is; the sentence says where to get them.
        """
        if self.published and path == self.published and not path.exists():
            raise InputError(f"{path} does not exist: {self.published_source}, or name another file with --ckpt.")
