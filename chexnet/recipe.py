"""CheXNet as published: DenseNet121, 14 findings, Adam with a piecewise rate, early stopping on mean AUROC."""
from __future__ import annotations

from dataclasses import replace

from chexnet.downloads import DOWNLOADS
from chexnet.labels import CHINESE, CLASS_NAMES
from chexnet.published import PUBLISHED_FIGURES
from cxr.data.transforms import Augment, Preprocess
from cxr.errors import InputError
from cxr.models.recipe import Recipe, TrainDefaults


class CheXNetRecipe(Recipe):
    name = "chexnet"
    summary = "DenseNet121 with 14 sigmoid outputs, class activation maps (CheXNet)"
    class_names = tuple(CLASS_NAMES)
    translations = {"zh": CHINESE}
    activation = "sigmoid"
    published_figures = PUBLISHED_FIGURES
    # As the NIH published them: of the original images, and with a name of its own for one finding.
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

    def build(self, n_classes: int, layers: int = 121):
        from chexnet.model import CheXNet
        return CheXNet(n_classes, layers=layers)

    def add_arch_arguments(self, parser) -> None:
        parser.add_argument("--layers", type=int, choices=(121, 161, 169, 201, 264),
                            help="size of the DenseNet (default: 121)")

    def layouts(self) -> list:
        from chexnet.convert import layouts
        return layouts()

    def layer(self, model) -> str:
        return "densenet121.batch_norm"

    def add_train_arguments(self, parser) -> None:
        parser.add_argument("--data_dir", default="dataset/images", help="folder of the images (default: %(default)s)")
        parser.add_argument("--train_list", default="dataset/labels/train_list.txt",
                            help="lines of `NAME 0 1 0 ...`, one column a finding (default: %(default)s)")
        parser.add_argument("--val_list", default="dataset/labels/val_list.txt", help="(default: %(default)s)")
        parser.add_argument("--decay_epochs", default="10,15,18", metavar="N,N,...",
                            help="epochs after which the learning rate drops (default: %(default)s)")
        parser.add_argument("--decay_factor", type=float, default=0.1,
                            help="what it is multiplied with then (default: %(default)s)")

    def add_test_arguments(self, parser) -> None:
        parser.add_argument("--data_dir", default="dataset/images", help="folder of the images (default: %(default)s)")
        parser.add_argument("--test_list", default="dataset/labels/test_list.txt",
                            help="lines of `NAME 0 1 0 ...` (default: %(default)s)")
        parser.add_argument("--val_list", default="dataset/labels/val_list.txt",
                            help="the same for --fit (default: %(default)s)")

    def train_sets(self, args, split=None) -> tuple:
        from chexnet.data import ChestXrayDataSet
        return (ChestXrayDataSet(args.data_dir, args.train_list, seed=args.seed),
                ChestXrayDataSet(args.data_dir, args.val_list))

    def test_set(self, args, class_names, ckpt, split=None):
        from chexnet.data import ChestXrayDataSet
        return ChestXrayDataSet(args.data_dir, args.test_list, class_names=class_names)

    def val_set(self, args, class_names, ckpt):
        from chexnet.data import ChestXrayDataSet
        return ChestXrayDataSet(args.data_dir, args.val_list, class_names=class_names)

    def read_labels(self, path, class_names):
        from chexnet.lists import read_labels
        return read_labels(path, class_names)

    def patients(self, args, names):
        from chexnet.lists import patient_of
        return [patient_of(name) for name in names]

    def optimizer(self, args, parameters, steps_per_epoch: int) -> tuple:
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
