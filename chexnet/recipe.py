"""CheXNet as published: DenseNet121, 14 classes, Adam with a piecewise rate, early stopping on mean AUROC."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chexnet.downloads import DOWNLOADS
from chexnet.labels import CHINESE, CLASS_NAMES
from chexnet.published import PUBLISHED_FIGURES
from cxr.data.lists import LabelList
from cxr.data.transforms import Augment, Preprocess
from cxr.errors import InputError
from cxr.models.recipe import Recipe, TrainDefaults

if TYPE_CHECKING:                                # so that --help need not wait for Paddle
    from paddle import Tensor, nn
    from paddle.optimizer import Optimizer
    from paddle.optimizer.lr import LRScheduler

    from chexnet.data import ChestXrayDataSet
    from cxr.data.class_folders import Split
    from cxr.models.convert import Layout


class CheXNetRecipe(Recipe):
    """DenseNet on ChestX-ray14: several classes may be present in one image, so each has a sigmoid."""

    name = "chexnet"
    summary = "DenseNet121 with 14 sigmoid outputs, class activation maps (CheXNet)"
    class_names = tuple(CLASS_NAMES)
    translations = {"zh": CHINESE}
    activation = "sigmoid"
    published_figures = PUBLISHED_FIGURES
    # As the NIH published them: of the original images, and with another name for one class.
    box_size = 1024
    box_aliases = {"Infiltrate": "Infiltration"}
    arch = {"layers": 121}
    preprocess = Preprocess()
    # The published scores were trained and tested on Pillow images, the published CAM pictures drawn from arrays.
    cam_preprocess = replace(preprocess, antialias=False)
    method = "cam"
    classes = "all"
    defaults = TrainDefaults(epoch=20, batch_size=128, learning_rate=0.001, monitor="AUROC_avg", patience=10,
                             augmentation="random crop and flip")
    published = DOWNLOADS[0].target
    published_source = ("fetch it with `python tools/fetch_weights.py model_paddle.pdparams` (or `cam --download`), or "
                        f"put it there yourself, from {DOWNLOADS[0].url()} (`git hash-object` of it prints "
                        f"{DOWNLOADS[0].blob})")
    downloads = DOWNLOADS

    def build(self, n_classes: int, layers: int = 121) -> nn.Layer:
        from chexnet.model import CheXNet
        return CheXNet(n_classes, layers=layers)

    def add_arch_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--layers", type=int, choices=(121, 161, 169, 201, 264),
                            help="number of layers of the DenseNet (default: 121)")

    def layouts(self) -> list[Layout]:
        from chexnet.convert import layouts
        return layouts()

    def layer(self, model: nn.Layer) -> str:
        return "densenet121.batch_norm"

    def add_train_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data_dir", default="dataset/images", help="folder of the images (default: %(default)s)")
        parser.add_argument("--train_list", default="dataset/labels/train_list.txt",
                            help="training list, lines of `NAME 0 1 0 ...` with one column for each class "
                                 "(default: %(default)s)")
        parser.add_argument("--val_list", default="dataset/labels/val_list.txt",
                            help="validation list, in the same form (default: %(default)s)")
        parser.add_argument("--decay_epochs", default="10,15,18", metavar="N,N,...",
                            help="epochs after which the learning rate drops (default: %(default)s)")
        parser.add_argument("--decay_factor", type=float, default=0.1,
                            help="factor by which it drops each time (default: %(default)s)")

    def add_test_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data_dir", default="dataset/images", help="folder of the images (default: %(default)s)")
        parser.add_argument("--test_list", default="dataset/labels/test_list.txt",
                            help="test list, lines of `NAME 0 1 0 ...` (default: %(default)s)")
        parser.add_argument("--val_list", default="dataset/labels/val_list.txt",
                            help="validation list for --fit, in the same form (default: %(default)s)")

    def train_sets(self, args: argparse.Namespace, split: Split | None = None
                   ) -> tuple[ChestXrayDataSet, ChestXrayDataSet]:
        from chexnet.data import ChestXrayDataSet
        return (ChestXrayDataSet(args.data_dir, args.train_list, seed=args.seed),
                ChestXrayDataSet(args.data_dir, args.val_list))

    def test_set(self, args: argparse.Namespace, class_names: Sequence[str], ckpt: Path,
                 split: Split | None = None) -> ChestXrayDataSet:
        from chexnet.data import ChestXrayDataSet
        return ChestXrayDataSet(args.data_dir, args.test_list, class_names=class_names)

    def val_set(self, args: argparse.Namespace, class_names: Sequence[str], ckpt: Path) -> ChestXrayDataSet:
        from chexnet.data import ChestXrayDataSet
        return ChestXrayDataSet(args.data_dir, args.val_list, class_names=class_names)

    def read_labels(self, path: str | os.PathLike, class_names: Sequence[str]) -> LabelList:
        from chexnet.lists import read_labels
        return read_labels(path, class_names)

    def patients(self, args: argparse.Namespace, names: Sequence[str]) -> list[str]:
        from chexnet.lists import patient_of
        return [patient_of(name) for name in names]

    def optimizer(self, args: argparse.Namespace, parameters: Sequence[Tensor], steps_per_epoch: int
                  ) -> tuple[Optimizer, LRScheduler]:
        from paddle.optimizer import Adam
        from paddle.optimizer.lr import PiecewiseDecay
        try:
            epochs = [int(epoch) for epoch in args.decay_epochs.split(",") if epoch.strip()]
        except ValueError:
            raise InputError(f"--decay_epochs '{args.decay_epochs}' is no list of whole numbers: write 10,15,18."
                             ) from None
        rates = [args.learning_rate * args.decay_factor ** index for index in range(len(epochs) + 1)]
        scheduler = PiecewiseDecay([epoch * steps_per_epoch for epoch in epochs], rates)
        return Adam(scheduler, parameters=parameters), scheduler

    def augment(self, preprocess: Preprocess) -> Augment:
        return Augment(preprocess)


RECIPES = (CheXNetRecipe(),)
