"""The COVID ResNet as published: ResNet50, Momentum with warm-up and cosine, Grad-CAM of the last block."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from covid_resnet.labels import CHINESE, CLASS_NAMES
from covid_resnet.pneumonia import PneumoniaRecipe
from covid_resnet.published import PUBLISHED_FIGURES
from covid_resnet.resnet_recipe import ResNetRecipe
from cxr.data.lists import LabelList
from cxr.data.transforms import Preprocess
from cxr.errors import InputError
from cxr.models.class_folder_recipe import ClassFolderRecipe
from cxr.models.recipe import TrainDefaults

if TYPE_CHECKING:                                # so that --help need not wait for Paddle
    from paddle import Tensor
    from paddle.optimizer import Optimizer
    from paddle.optimizer.lr import LRScheduler

    from covid_resnet.data import CovidDataset


class CovidResNetRecipe(ResNetRecipe, ClassFolderRecipe):
    """ResNet on class folders, trained on the images as they are."""

    name = "covid_resnet"
    summary = "ResNet 18-152 on class folders, Momentum + CosineWarmup, Grad-CAM (COVID notebook)"
    class_names = CLASS_NAMES
    translations = {"zh": CHINESE}
    published_figures = PUBLISHED_FIGURES
    arch = {"layers": 50}
    # Mean and standard deviation of the notebook's 21,165 images, of pixels 0-255. The notebook resizes the shorter
    # side, which on its square images is the same as resizing both; other shapes would not stack into batches.
    preprocess = Preprocess(resize=(224, 224), crop=None, scale=1.0, mean=(129.90909919,) * 3, std=(59.0183735,) * 3,
                            antialias=False)
    cam_preprocess = preprocess
    defaults = TrainDefaults(epoch=50, batch_size=50, learning_rate=0.01)

    def listed(self, data_dir: str | os.PathLike, label_list: str | os.PathLike | LabelList,
               class_names: Sequence[str], seed: int = 0) -> CovidDataset:
        from covid_resnet.data import CovidDataset
        return CovidDataset(data_dir, label_list, class_names=class_names, seed=seed)

    def add_train_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_train_arguments(parser)
        parser.add_argument("--warmup_epochs", type=float, metavar="N",
                            help="epochs over which the learning rate rises from 0 (default: a tenth of the run, at "
                                 "most 5, as in the published 50 epochs)")

    def optimizer(self, args: argparse.Namespace, parameters: Sequence[Tensor], steps_per_epoch: int
                  ) -> tuple[Optimizer, LRScheduler]:
        from paddle.optimizer import Momentum

        from covid_resnet.schedule import CosineWarmup
        warmup = min(5, args.epoch / 10) if args.warmup_epochs is None else args.warmup_epochs
        if not 0 <= warmup < args.epoch:
            raise InputError(f"--warmup_epochs {warmup:g} must be at least 0 and less than --epoch {args.epoch}.")
        scheduler = CosineWarmup(args.learning_rate, steps_per_epoch, args.epoch, warmup)
        return Momentum(scheduler, parameters=parameters), scheduler

    def augment(self, preprocess: Preprocess) -> Preprocess:
        return preprocess                          # the notebook trains on the images as they are


RECIPES = (CovidResNetRecipe(), PneumoniaRecipe())
