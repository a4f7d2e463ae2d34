#!/usr/bin/env python
"""Train a model on a folder of X-rays."""
from __future__ import annotations

import argparse
import warnings
from typing import TYPE_CHECKING

from _cli import add_device, not_negative, parser, positive, recipe_parsers, recipes, run

from cxr.models.recipe import Recipe

if TYPE_CHECKING:
    from paddle import nn

    from cxr.data.class_folders import Split
    from cxr.training.resume import Saved
    from cxr.training.settings import Settings

EXAMPLES = """\
  python tools/train.py covid_resnet --data_dir dataset                 # dataset/COVID/*.png, dataset/Normal/*.png ...
  python tools/train.py covid_resnet --data_dir dataset --resume        # go on after it was stopped or killed
  python tools/train.py pneumonia --data_dir chest_xray --backbone resnet152.pdparams
  python tools/train.py chexnet --data_dir dataset/images \\
      --train_list dataset/labels/train_list.txt --val_list dataset/labels/val_list.txt
  python -m paddle.distributed.launch --gpus 0,1 tools/train.py chexnet ...   # one process for each GPU"""
# What --resume may change: it alters no step. Lists are compared by their content.
FREE = {"recipe", "device", "data_dir", "train_list", "val_list", "patients", "save_dir", "resume", "overwrite",
        "save_every", "max_steps", "patience", "num_workers", "cache_dir", "visualdl"}


def arguments() -> argparse.Namespace:
    main = parser("Train a model on a folder of X-rays. Writes into save_dir: best.pdparams and last.pdparams "
                  "(with class names,\npreprocessing and architecture inside, so that eval and cam need no flags), "
                  "history.csv, curves.png,\nresume.ckpt (the resume state), and the lists of the split if "
                  "it is made here.",
                  EXAMPLES)
    for name, sub in recipe_parsers(main).items():
        recipe = recipes()[name]
        recipe.add_train_arguments(sub)
        recipe.add_arch_arguments(sub)
        add_device(sub)
        _add_schedule(sub, recipe)
        _add_start(sub.add_argument_group("where training starts"), recipe)
        _add_imbalance(sub.add_argument_group("unequal classes, uncertain labels"), recipe)
        _add_safety(sub.add_argument_group("stopping, resuming, watching"), name)
    return main.parse_args()


def _add_schedule(sub: argparse.ArgumentParser, recipe: Recipe) -> None:
    defaults = recipe.defaults
    sub.add_argument("--epoch", type=positive, default=defaults.epoch,
                     help="number of times to go through the training set (default: %(default)s, as published)")
    sub.add_argument("--batch_size", type=positive, default=defaults.batch_size,
                     help="images at once, in each process; lower it if memory runs out (default: %(default)s, as "
                          "published)")
    sub.add_argument("--accumulate", type=positive, default=1, metavar="N",
                     help="batches in each step: the same gradient with N times fewer images at once (default: "
                          "%(default)s)")
    sub.add_argument("--learning_rate", type=float, default=defaults.learning_rate,
                     help="highest learning rate of the schedule (default: %(default)s, as published)")
    sub.add_argument("--patience", type=not_negative, default=defaults.patience or 0, metavar="N",
                     help=f"stop after N epochs without a better {defaults.monitor}; 0: never (default: %(default)s)")
    sub.add_argument("--max_steps", type=positive, metavar="N", help="end after N steps, to try things out")
    augment = sub.add_mutually_exclusive_group()
    augment.add_argument("--augment", action="store_true",
                         help="rotate by up to 10 degrees, enlarge by up to a quarter and mirror the training images, "
                              f"all at random (default: as published, {defaults.augmentation})")
    augment.add_argument("--no_augment", action="store_true", help="train on the images as they are")
    sub.add_argument("--amp", action="store_true", help="mixed precision, float16 where it is safe (GPU only)")
    sub.add_argument("--seed", type=not_negative, default=0,
                     help="seed of weights, split, order and augmentation (default: %(default)s)")
    sub.add_argument("--deterministic", action="store_true",
                     help="have equal runs give equal bits on a GPU too, somewhat slower (on a CPU they do anyway)")
    sub.add_argument("--num_workers", type=not_negative, metavar="N",
                     help="threads that read images (default: one for each core)")
    sub.add_argument("--cache_dir", metavar="FOLDER",
                     help="keep the resized images in this folder, so that epochs after the first decode no large "
                          "files (about 65 kB an image; training sees the same pixels; worth it for images of "
                          "1024 x 1024)")


def _add_start(group: argparse._ArgumentGroup, recipe: Recipe) -> None:
    group.add_argument("--pretrained", metavar="FILE", help="start from this checkpoint, of the same model and classes")
    group.add_argument("--backbone", metavar="FILE",
                       help="start from these weights, except for the classifier: for example from ImageNet's, as "
                            "tools/convert.py writes them (default: random weights)")
    group.add_argument("--freeze", action="store_true", default=recipe.defaults.freeze,
                       help="train only the classifier; the rest stays as it is, batch norms too"
                            + (" (default)" if recipe.defaults.freeze else ""))
    group.add_argument("--no_freeze", action="store_false", dest="freeze",
                       help="train everything" + ("" if recipe.defaults.freeze else " (default)"))


def _add_imbalance(group: argparse._ArgumentGroup, recipe: Recipe) -> None:
    group.add_argument("--class_weights", choices=("balanced", "none"), default="none",
                       help="let rare classes count as much as common ones in the loss (default: %(default)s)")
    group.add_argument("--balanced_sampling", action="store_true", help="show rare classes as often as common ones")
    group.add_argument("--label_smoothing", type=_share, default=0.0, metavar="SHARE",
                       help="share of every label that is spread evenly over all classes (default: %(default)s)")


def _add_safety(group: argparse._ArgumentGroup, name: str) -> None:
    group.add_argument("--save_dir", default=f"output/{name}", help="folder for the results (default: %(default)s)")
    group.add_argument("--resume", action="store_true",
                       help="go on from the resume state in save_dir; the weights end as if the run had never stopped")
    group.add_argument("--overwrite", action="store_true", help="delete the run that save_dir holds")
    group.add_argument("--save_every", type=_minutes, metavar="MINUTES",
                       help="time between resume states, 0 for one after each step (default: 10, or more where they "
                            "would take over 1 %% of the time; one is always written after an epoch)")
    group.add_argument("--visualdl", action="store_true",
                       help="also write figures for VisualDL into visualdl/ (needs `pip install visualdl`)")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError
    return value


def _minutes(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise ValueError
    return value


def main(args: argparse.Namespace) -> None:
    from cxr.errors import InputError
    from cxr.training.resume import claim
    from cxr.utils import distributed

    if args.resume and args.overwrite:
        raise InputError("--resume and --overwrite contradict each other: give one of them.")
    distributed.start()
    with claim(args.save_dir, args.resume, args.overwrite) as saved:
        train(recipes()[args.recipe], args, saved)


def _keep_lists(recipe: Recipe, args: argparse.Namespace) -> Split | None:
    """The split of this training, if it has one. Nothing else writes or removes lists in save_dir."""
    split = recipe.split(args)
    if split is None:
        return None
    for note in split.notes:
        print(f"Note: {note}")
    kept = split.keep(args.save_dir)
    if split.origin == "made":
        print(f"{split}, into {args.save_dir}.")
    return kept


def _fill(model: nn.Layer, args: argparse.Namespace, new: bool) -> None:
    """Give a model of a new run the weights that it starts from, and freeze its backbone if that is asked for."""
    from cxr.models.transfer import freeze_backbone, load_backbone
    from cxr.weights import load_weights

    if new and args.pretrained:
        load_weights(model, args.pretrained)
    elif new and args.backbone:
        load_backbone(model, args.backbone)
    elif new and args.freeze:
        print("Note: the backbone is frozen with random weights, so this shows that things work and nothing else: "
              "give --backbone FILE (see tools/convert.py).")
    if args.freeze:
        freeze_backbone(model)


def _settings(recipe: Recipe, args: argparse.Namespace) -> Settings:
    from cxr.training.settings import Settings

    return Settings(
        save_dir=args.save_dir, epochs=args.epoch, batch_size=args.batch_size, monitor=recipe.defaults.monitor,
        patience=args.patience, max_steps=args.max_steps, seed=args.seed, workers=args.num_workers,
        accumulate=args.accumulate, save_every=args.save_every, label_smoothing=args.label_smoothing,
        class_weights=args.class_weights == "balanced", balanced_sampling=args.balanced_sampling, amp=args.amp,
        visualdl=args.visualdl)


def train(recipe: Recipe, args: argparse.Namespace, saved: Saved | None) -> None:
    """Train as the flags say, going on from `saved` if there is one."""
    import paddle

    from cxr.data.cache import ResizedImages
    from cxr.data.lists import sources_of
    from cxr.data.transforms import Augment
    from cxr.device import chosen
    from cxr.evaluation.split_audit import concerns, images_of
    from cxr.models.restore import metadata
    from cxr.models.transfer import trainable
    from cxr.training.trainer import fit
    from cxr.utils import distributed

    train_set, val_set = recipe.train_sets(args, _keep_lists(recipe, args))
    if saved is None and distributed.rank() == 0:
        splits = {"train": train_set, "val": val_set}
        names = images_of(splits)
        for sentence in concerns(splits, dict(zip(names, recipe.patients(args, names))), sources_of(args.data_dir)):
            warnings.warn(f"{sentence.rstrip('.')}. tools/audit.py tells more.", stacklevel=1)
    preprocess, arch = recipe.preprocess, recipe.arch_of(args)
    if args.augment:
        train_set.transform = Augment(preprocess, rotate=10, zoom=0.2)
    else:
        train_set.transform = preprocess if args.no_augment else recipe.augment(preprocess)
    val_set.transform = preprocess
    if args.cache_dir:
        train_set.read = val_set.read = ResizedImages(args.cache_dir, preprocess.resize, preprocess.antialias)
    paddle.seed(args.seed)
    model = recipe.build(len(train_set.class_names), **arch)
    _fill(model, args, new=saved is None)
    settings = _settings(recipe, args)
    optimizer, scheduler = recipe.optimizer(args, trainable(model), settings.steps_per_epoch(len(train_set)))
    print(f"Training {args.recipe} on {chosen()} with {len(train_set)} images, "
          f"validating with {len(val_set)}; "
          f"classes {', '.join(train_set.class_names)}.", flush=True)
    flags = {f"--{name}": value for name, value in {**vars(args), **arch}.items() if name not in FREE}
    history = fit(model, train_set, val_set, optimizer, scheduler, settings,
                  metadata(recipe, arch, train_set.class_names, preprocess), saved=saved,
                  identity={"the model": args.recipe, **flags})
    best = history.best
    print(f"Best epoch {best['epoch']}: {recipe.defaults.monitor} {best[f'val_{recipe.defaults.monitor}']:.4f}. "
          f"Weights, history.csv and curves.png are in {args.save_dir}.")


if __name__ == "__main__":
    args = arguments()
    if args.deterministic:
        from cxr.runtime import be_deterministic
        be_deterministic()
    run(lambda: main(args), device=args.device)
