#!/usr/bin/env python
"""Train a model on a folder of X-rays."""
from pathlib import Path

from _cli import not_negative, parser, positive, recipe_parsers, recipes, run, writable

EXAMPLES = """\
  python tools/train.py covid_resnet --data_dir dataset                 # dataset/COVID/*.png, dataset/Normal/*.png ...
  python tools/train.py covid_resnet --data_dir dataset --layers 18 --epoch 10
  python tools/train.py chexnet --data_dir dataset/images \\
      --train_list dataset/labels/train_list.txt --val_list dataset/labels/val_list.txt"""


def arguments():
    main = parser("Train a model on a folder of X-rays. Writes into save_dir: best.pdparams and last.pdparams "
                  "(with class names,\npreprocessing and architecture inside, so that eval and cam need no flags), "
                  "history.csv, curves.png, and the\nlists of the split where it was made here.", EXAMPLES)
    for name, sub in recipe_parsers(main).items():
        recipe = recipes()[name]
        recipe.add_train_arguments(sub)
        recipe.add_arch_arguments(sub)
        sub.add_argument("--save_dir", default=f"output/{name}", help="(default: %(default)s)")
        sub.add_argument("--epoch", type=positive, default=recipe.defaults.epoch,
                         help="how often to go through the training set (default: %(default)s, as published)")
        sub.add_argument("--batch_size", type=positive, default=recipe.defaults.batch_size,
                         help="images a step; lower it if memory runs out (default: %(default)s, as published)")
        sub.add_argument("--learning_rate", type=float, default=recipe.defaults.learning_rate,
                         help="highest of the schedule (default: %(default)s, as published)")
        sub.add_argument("--pretrained", metavar="FILE", help="start from these weights instead of random ones")
        sub.add_argument("--max_steps", type=positive, metavar="N", help="end after N batches, to try things out")
        sub.add_argument("--seed", type=int, default=0, help="of split, order and augmentation (default: %(default)s)")
        sub.add_argument("--num_workers", type=not_negative, metavar="N",
                         help="threads that read images (default: one a core)")
    return main.parse_args()


def main(args) -> None:
    import paddle

    from cxr.recipe import metadata
    from cxr.training import Settings, fit
    from cxr.weights import load_weights

    recipe = recipes()[args.recipe]
    train_set, val_set = recipe.train_sets(args)
    writable(Path(args.save_dir))
    preprocess = recipe.preprocess
    train_set.transform, val_set.transform = recipe.augment(preprocess), preprocess
    paddle.seed(args.seed)
    model = recipe.new_model(args, len(train_set.class_names))
    if args.pretrained:
        load_weights(model, args.pretrained)
    steps = -(-len(train_set) // args.batch_size)
    optimizer, scheduler = recipe.optimizer(args, model.parameters(), steps)
    print(f"Training {args.recipe} on {paddle.get_device()} with {len(train_set)} images, "
          f"validating with {len(val_set)}; "
          f"classes {', '.join(train_set.class_names)}.", flush=True)
    settings = Settings(args.save_dir, args.epoch, args.batch_size, recipe.monitor, recipe.patience, args.max_steps,
                        args.seed, args.num_workers)
    history = fit(model, train_set, val_set, optimizer, scheduler, settings,
                  metadata(recipe, recipe.arch_of(args), train_set.class_names, preprocess))
    best = history.best
    print(f"Best epoch {best['epoch']}: {recipe.monitor} {best[f'val_{recipe.monitor}']:.4f}. "
          f"Weights, history.csv and curves.png are in {args.save_dir}.")


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args))
