"""Pneumonia by transfer learning as published: a frozen ResNet152 with a new head, and CAM from the head's weights.

The article trains `Linear` + `LogSoftmax` with the negative log likelihood; the model here gives the logits, whose
cross entropy is the same number, and keeps the keys of `ResNet(152, 2)`. Its batch norms went on collecting
statistics although their weights were frozen; here all of the backbone stays as it came.
"""
from __future__ import annotations

import re
from pathlib import Path

from covid_resnet.resnet_recipe import ResNetRecipe
from cxr.data.transforms import Augment, Preprocess
from cxr.errors import InputError
from cxr.models.recipe import TrainDefaults

_FEW = 50                                        # validation images that cannot tell good from lucky


class PneumoniaRecipe(ResNetRecipe):
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

    def add_train_arguments(self, parser) -> None:
        parser.add_argument("--data_dir", default="chest_xray",
                            help="folder of train/ and val/, each with a folder of images for every class "
                                 "(default: %(default)s)")
        parser.add_argument("--decay_every", type=int, default=4, metavar="N",
                            help="epochs after which the learning rate drops, again and again (default: %(default)s)")
        parser.add_argument("--decay_factor", type=float, default=0.1,
                            help="what it is multiplied with then (default: %(default)s)")

    def add_test_arguments(self, parser) -> None:
        parser.add_argument("--data_dir", default="chest_xray",
                            help="folder of test/ (for --fit, of val/) with a folder of images for every class "
                                 "(default: %(default)s)")

    def train_sets(self, args, split=None) -> tuple:
        from cxr.data.dataset import FolderDataset
        train = FolderDataset(Path(args.data_dir, "train"), seed=args.seed)
        val = FolderDataset(Path(args.data_dir, "val"), train.class_names)
        if len(val) < _FEW:
            print(f"Note: {Path(args.data_dir, 'val')} holds {len(val)} images only, too few to choose the best epoch "
                  "by: move some of train there.")
        return train, val

    def test_set(self, args, class_names, ckpt, split=None):
        from cxr.data.dataset import FolderDataset
        return FolderDataset(Path(args.data_dir, "test"), class_names)

    def val_set(self, args, class_names, ckpt):
        from cxr.data.dataset import FolderDataset
        return FolderDataset(Path(args.data_dir, "val"), class_names)

    def patients(self, args, names):
        # `person89_virus_168.jpeg`; the normal images of Kermany et al. do not tell whether two are of one person.
        found = (re.search(r"(?:^|/)(person\d+)_", name) for name in names)
        return [match[1] if match else name for match, name in zip(found, names)]

    def optimizer(self, args, parameters, steps_per_epoch: int) -> tuple:
        from paddle.optimizer import Adam
        from paddle.optimizer.lr import StepDecay
        if args.decay_every < 1:
            raise InputError(f"--decay_every {args.decay_every} must be at least 1.")
        scheduler = StepDecay(args.learning_rate, args.decay_every * steps_per_epoch, args.decay_factor)
        return Adam(scheduler, parameters=parameters), scheduler

    def augment(self, preprocess: Preprocess) -> Augment:
        return Augment(preprocess, rotate=20)
