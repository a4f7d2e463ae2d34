#!/usr/bin/env python
"""Look for what makes a split unfair."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import not_negative, parser, recipe_parsers, recipes, run, writable

if TYPE_CHECKING:
    from cxr.data.class_folders import Split

EXAMPLES = """\
  python tools/audit.py covid_resnet --data_dir dataset
  python tools/audit.py chexnet --data_dir dataset/images --train_list dataset/labels/train_list.txt \\
      --val_list dataset/labels/val_list.txt --test_list dataset/labels/test_list.txt"""


def arguments() -> argparse.Namespace:
    main = parser("Audit the training, validation and test sets before training on them: patients in two splits,\n"
                  "copies of one radiograph (also resized or saved again), copies with different labels, and how well\n"
                  "the source alone predicts the class. Reads every image once. Writes findings.csv and a picture of\n"
                  "the copies.",
                  EXAMPLES)
    for name, sub in recipe_parsers(main).items():
        recipe = recipes()[name]
        recipe.add_train_arguments(sub)
        of_test = argparse.ArgumentParser(add_help=False)
        recipe.add_test_arguments(of_test)
        test_list = of_test.get_default("test_list")
        sub.add_argument("--test_list", default=test_list,
                         help=f"list of the test set (default: {test_list or 'the one that `eval` takes'})")
        sub.add_argument("--sources", metavar="CSV", help="table with the column `file` and one that names the source "
                                                          "(default: sources.csv in data_dir if it is there)")
        sub.add_argument("--source_column", metavar="NAME", help="name of that column (default: source, or else the "
                                                                 "beginning of source_file)")
        sub.add_argument("--save_dir", default=f"output/audit/{name}",
                         help="folder for the results (default: %(default)s)")
        sub.add_argument("--seed", type=int, default=0,
                         help="seed of the split that `train` would make where there are no lists (default: 0)")
        sub.add_argument("--num_workers", type=not_negative, metavar="N",
                         help="threads that read images (default: one for each core)")
        sub.set_defaults(resume=True)              # of a run, the lists that it was trained on
    return main.parse_args()


def _show(split: Split, folder: Path) -> None:
    """Say which split is audited."""
    for note in split.notes:
        print(f"Note: {note}")
    if split.origin == "made":
        print(f"{split}. It is the one that `train` makes with this seed; no lists are written.")
    elif split.origin == "kept":
        print(f"Split as the lists in {folder} have it, whatever --seed says.")


def main(args: argparse.Namespace) -> None:
    from prettytable import PrettyTable

    from cxr.data.lists import sources_of
    from cxr.errors import InputError
    from cxr.evaluation.split_audit import audit, draw_duplicates, images_of, write_checks

    recipe, folder = recipes()[args.recipe], writable(Path(args.save_dir))
    split = recipe.split(args)
    if split:
        _show(split, folder)
    train_set, val_set = recipe.train_sets(args, split)
    splits = {"train": train_set, "val": val_set}
    try:
        splits["test"] = recipe.test_set(args, train_set.class_names, folder / "best.pdparams", split)
    except InputError as error:
        print(f"Note: no test set: {error}")
    names = images_of(splits)
    checks = audit(splits, dict(zip(names, recipe.patients(args, names))),
                   sources_of(args.data_dir, args.sources, args.source_column), workers=args.num_workers)
    table = PrettyTable(["check", "", "found"], align="l", max_width=90)
    table.add_rows([[check.name, "!" if check.worrying else "", check.sentence] for check in checks])
    print(table)
    write_checks(folder / "findings.csv", checks)
    drawn = draw_duplicates(folder / "duplicates.png", splits, checks)
    print("Audited " + ", ".join(f"{name} {len(dataset)}" for name, dataset in splits.items())
          + f" images. {folder / 'findings.csv'} has the data"
          + (f", {folder / 'duplicates.png'} the first {drawn} pairs." if drawn else "."))


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args))
