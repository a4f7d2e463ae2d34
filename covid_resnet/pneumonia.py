"""Pneumonia by transfer learning as published: a frozen ResNet152 with a new head, and CAM from the head's weights.

The article trains `Linear` + `LogSoftmax` with the negative log likelihood; the model here gives the logits, whose
cross entropy is the same number, and keeps the keys of `ResNet(152, 2)`. Its batch norms went on collecting
statistics although their weights were frozen; here all of the backbone stays as it came.
"""
from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from covid_resnet.resnet_recipe import ResNetRecipe
from cxr.data.transforms import Augment, Preprocess
from cxr.errors import InputError
from cxr.models.recipe import TrainDefaults

if TYPE_CHECKING:                                # so that --help need not wait for Paddle
    from paddle import Tensor
    from paddle.optimizer import Optimizer
    from paddle.optimizer.lr import LRScheduler

    from cxr.data.class_folders import Split
    from cxr.data.dataset import FolderDataset

_FEW = 50                                        # validation images that cannot tell good from lucky


class PneumoniaRecipe(ResNetRecipe):
    """ResNet152 on the folders of Kermany et al., of which the head alone is trained."""

    name = "pneumonia"
    summary = "ResNet152 with a frozen ImageNet backbone and a new head on the folders train/, val/, test/"
    class_names = ("NORMAL", "PNEUMONIA")
    arch = {"layers": 152}
    preprocess = Preprocess(resize=(224, 224), crop=None)
    cam_preprocess = preprocess
    method = "cam"
    classes = "top"
    defaults = TrainDefaults(epoch=10, batch_size=256, learning_rate=0.001, freeze=True,
                             augmentation="rotation by up to 20 degrees and flip")
    published = None
    published_source = ""

    def add_train_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data_dir", default="chest_xray",
                            help="folder with train/ and val/ in it, each with a folder of images for every class "
                                 "(default: %(default)s)")
        parser.add_argument("--decay_every", type=int, default=4, metavar="N",
                            help="epochs between drops of the learning rate (default: %(default)s)")
        parser.add_argument("--decay_factor", type=float, default=0.1,
                            help="factor by which it drops each time (default: %(default)s)")

    def add_test_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data_dir", default="chest_xray",
                            help="folder with test/ in it (for --fit, val/), which has a folder of images for every "
                                 "class (default: %(default)s)")

    def train_sets(self, args: argparse.Namespace, split: Split | None = None) -> tuple[FolderDataset, FolderDataset]:
        from cxr.data.dataset import FolderDataset
        train = FolderDataset(Path(args.data_dir, "train"), seed=args.seed)
        val = FolderDataset(Path(args.data_dir, "val"), train.class_names)
        if len(val) < _FEW:
            print(f"Note: {Path(args.data_dir, 'val')} holds only {len(val)} images, too few to choose the best epoch "
                  "by: move some of train there.")
        return train, val

    def test_set(self, args: argparse.Namespace, class_names: Sequence[str], ckpt: Path,
                 split: Split | None = None) -> FolderDataset:
        from cxr.data.dataset import FolderDataset
        return FolderDataset(Path(args.data_dir, "test"), class_names)

    def val_set(self, args: argparse.Namespace, class_names: Sequence[str], ckpt: Path) -> FolderDataset:
        from cxr.data.dataset import FolderDataset
        return FolderDataset(Path(args.data_dir, "val"), class_names)

    def patients(self, args: argparse.Namespace, names: Sequence[str]) -> list[str]:
        # `person89_virus_168.jpeg`; the normal images of Kermany et al. do not tell whether two are of one person.
        found = (re.search(r"(?:^|/)(person\d+)_", name) for name in names)
        return [match[1] if match else name for match, name in zip(found, names)]

    def optimizer(self, args: argparse.Namespace, parameters: Sequence[Tensor], steps_per_epoch: int
                  ) -> tuple[Optimizer, LRScheduler]:
        from paddle.optimizer import Adam
        from paddle.optimizer.lr import StepDecay
        if args.decay_every < 1:
            raise InputError(f"--decay_every {args.decay_every} must be at least 1.")
        scheduler = StepDecay(args.learning_rate, args.decay_every * steps_per_epoch, args.decay_factor)
        return Adam(scheduler, parameters=parameters), scheduler

    def augment(self, preprocess: Preprocess) -> Augment:
        return Augment(preprocess, rotate=20)
