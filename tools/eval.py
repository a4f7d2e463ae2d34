#!/usr/bin/env python
"""Say how good a checkpoint is."""
from pathlib import Path

from _cli import not_negative, parser, positive, recipe_parsers, recipes, run, writable

EXAMPLES = """\
  python tools/eval.py covid_resnet --data_dir dataset                  # output/covid_resnet/best.pdparams
  python tools/eval.py chexnet --data_dir dataset/images --test_list dataset/labels/test_list.txt --ten_crop"""


def arguments():
    main = parser("Evaluate a checkpoint: loss, accuracy, precision, recall, F1 and AUROC of every class. Writes\n"
                  "predictions.csv (one row an image: label and probability of every class).", EXAMPLES)
    for name, sub in recipe_parsers(main).items():
        recipe = recipes()[name]
        recipe.add_test_arguments(sub)
        sub.add_argument("--ckpt", default=recipe.published or f"output/{name}/best.pdparams",
                         help="weights to evaluate (default: %(default)s)")
        sub.add_argument("--ten_crop", action="store_true",
                         help="average the scores of four corners, centre and their mirror images (published CheXNet "
                              "protocol, 10 times the work)")
        sub.add_argument("--save_dir", help="where predictions.csv goes (default: the folder eval beside the "
                                            "checkpoint)")
        sub.add_argument("--batch_size", type=positive, default=32, help="images at once (default: %(default)s)")
        sub.add_argument("--engine", choices=("auto", "onednn", "dygraph"), default="auto",
                         help="what runs the network: Paddle Inference with oneDNN on a CPU, plain Paddle, or the "
                              "faster one (default: %(default)s)")
        sub.add_argument("--num_workers", type=not_negative, metavar="N",
                         help="threads that read images (default: one a core)")
        recipe.add_arch_arguments(sub.add_argument_group("for a bare checkpoint, which does not say"))
    return main.parse_args()


def main(args) -> None:
    from cxr.inference import Predictor, predict
    from cxr.metrics import evaluate, headline, write_predictions
    from cxr.preprocess import TenCrop
    from cxr.recipe import restore

    recipe, ckpt = recipes()[args.recipe], Path(args.ckpt)
    restored = restore(recipe, ckpt, recipe.preprocess, recipe.arch_of(args))
    dataset = recipe.test_set(args, restored.class_names, ckpt)
    dataset.transform = TenCrop(restored.preprocess) if args.ten_crop else restored.preprocess
    folder = writable(Path(args.save_dir) if args.save_dir else ckpt.parent / "eval")
    batch_size = max(1, args.batch_size // 10) if args.ten_crop else args.batch_size
    logits = predict(Predictor(restored.model, args.engine), dataset, batch_size, args.num_workers)
    report = evaluate(logits, dataset.labels, dataset.class_names, restored.model.activation)
    write_predictions(folder / "predictions.csv", dataset.names, logits, dataset.labels, dataset.class_names,
                      restored.model.activation)
    print(f"{ckpt} on {len(dataset)} images{', ten crops' if args.ten_crop else ''}: {headline(report.values)}\n"
          f"{report.table}\nPredictions are in {folder / 'predictions.csv'}.")


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args))
