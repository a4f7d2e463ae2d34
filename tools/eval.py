#!/usr/bin/env python
"""Say how good a checkpoint is."""
from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import add_device, add_engine, not_negative, parser, positive, recipe_parsers, recipes, run, writable

from cxr.models.recipe import Recipe

if TYPE_CHECKING:
    from cxr.data.dataset import XrayDataset
    from cxr.evaluation.report import Section
    from cxr.evaluation.run import Bootstrap, Scoring, Stored
    from cxr.localisation.report import LocalisationReport
    from cxr.localisation.shortcut import ShortcutReport
    from cxr.models.restore import Restored

EXAMPLES = """\
  python tools/eval.py covid_resnet --data_dir dataset                  # output/covid_resnet/best.pdparams
  python tools/eval.py chexnet --data_dir dataset/images --test_list dataset/labels/test_list.txt --ten_crop
  python tools/eval.py chexnet --boxes BBox_List_2017.csv --shortcut    # does the map point at the finding?
  python tools/eval.py chexnet --fit youden --val_list dataset/labels/val_list.txt     # thresholds for eval and cam
  python tools/eval.py chexnet --predictions theirs.csv --labels dataset/labels/test_list.txt --save_dir report
  python tools/eval.py chexnet --compare ours.csv theirs.csv --labels dataset/labels/test_list.txt"""


def arguments() -> argparse.Namespace:
    main = parser("Evaluate a checkpoint, or the stored predictions of any system: AUROC, average\n"
                  "precision, precision, recall, specificity, F1 and calibration of every class, with 95 % intervals\n"
                  "by bootstrap over patients. Writes report.html (one file, pictures inside), report.md, report.json\n"
                  "and predictions.csv (one row for each image: label and score of every class).", EXAMPLES)
    for name, sub in recipe_parsers(main).items():
        recipe = recipes()[name]
        recipe.add_test_arguments(sub)
        add_map_arguments(sub, recipe)
        sub.add_argument("--ckpt", type=Path, help="checkpoint to evaluate (default: "
                                                   f"{recipe.published or f'output/{name}/best.pdparams'})")
        sub.add_argument("--ten_crop", action="store_true",
                         help="average the scores of ten crops: four corners, the centre, and their mirror images (the "
                              "published CheXNet protocol; ten times the work)")
        sub.add_argument("--save_dir", type=Path, help="where the report goes (default: the folder eval beside the "
                                                       "checkpoint, or the folder report beside the predictions)")
        sub.add_argument("--batch_size", type=positive, default=32, help="images at once (default: %(default)s)")
        add_engine(sub)
        add_device(sub)
        sub.add_argument("--num_workers", type=not_negative, metavar="N",
                         help="threads that read images (default: one for each core)")
        sub.add_argument("--resamples", type=positive, default=1000, metavar="N",
                         help="resamples of the bootstrap (default: %(default)s)")
        sub.add_argument("--seed", type=not_negative, default=0, help="seed of the bootstrap (default: %(default)s)")
        task = sub.add_argument_group("instead of evaluating a checkpoint on the test list"
                                      ).add_mutually_exclusive_group()
        task.add_argument("--fit", metavar="RULE",
                          help="fit thresholds (RULE: youden, or a rate such as sensitivity=0.90) and a temperature on "
                               "--val_list, and store them beside the checkpoint for eval and cam")
        task.add_argument("--predictions", type=Path, metavar="CSV",
                          help="judge stored scores: the image in the first column or in `image`, and a column "
                               "prob_<class> or <class> for every class; --ckpt then only says whose thresholds to use")
        task.add_argument("--compare", type=Path, nargs=2, metavar=("A.csv", "B.csv"),
                          help="compare two systems: the differences A minus B, by paired bootstrap")
        stored = sub.add_argument_group("for --predictions and --compare")
        stored.add_argument("--labels", type=Path, metavar="LIST", help="the list with the true labels")
        stored.add_argument("--class_names", metavar="NAME,NAME,...",
                            help=f"classes in the order of the labels (default: {', '.join(recipe.class_names)})")
        recipe.add_arch_arguments(sub.add_argument_group("for a weights file that does not name its architecture"))
    return main.parse_args()


def add_map_arguments(sub: argparse.ArgumentParser, recipe: Recipe) -> None:
    """Add the flags that ask where the model looks (`Evidence`)."""
    group = sub.add_argument_group("where the model looks, beside the rest of the report")
    group.add_argument("--boxes", metavar="CSV",
                       help="compare the maps with expert boxes, rows of image,label,x,y,w,h below a header, as in "
                            "BBox_List_2017.csv; the images are looked for in --data_dir")
    group.add_argument("--box_size", type=int, default=recipe.box_size or 0, metavar="PX",
                       help="side of the square image that the boxes refer to, of which the files may be scaled "
                            "versions; 0: of the files themselves (default: %(default)s)")
    group.add_argument("--shortcut", action="store_true",
                       help="measure how much of the maps lies outside the thorax, in corners and on the border")
    group.add_argument("--method", default="all", metavar="NAME,NAME|all",
                       help=f"CAM methods (default: all for --boxes, {recipe.method} for --shortcut)")
    group.add_argument("--top_k", type=int, default=32, metavar="N",
                       help="scorecam: try only the N channels that vary most, a forward pass each (default: "
                            "%(default)s; 0: all of them)")
    group.add_argument("--tolerance", type=float, default=15, metavar="PX",
                       help="by how many pixels of the network's input a peak may miss a box and still count as a hit "
                            "in the second column (default: %(default)s, as in Zhang et al. 2016)")


class Evidence:
    """What the flags of `add_map_arguments` ask for, made before the long work, so that mistakes are reported at once.

    Raises:
        InputError: for a wrong path, name or number.
    """

    def __init__(self, recipe: Recipe, args: argparse.Namespace):
        from cxr.data.boxes import read_boxes
        from cxr.errors import InputError
        from cxr.localisation.maps import MapOptions, choose_methods

        if min(args.box_size, args.top_k, args.tolerance) < 0:
            raise InputError("--box_size, --top_k and --tolerance cannot be negative.")
        choose_methods(args.method)
        self.recipe, self.args = recipe, args
        self.boxes = read_boxes(args.boxes) if args.boxes else None
        self.options = MapOptions(engine=args.engine, top_k=args.top_k or None, batch_size=args.batch_size,
                                  workers=args.num_workers)

    def results(self, restored: Restored, dataset: XrayDataset) -> Iterator[LocalisationReport | ShortcutReport]:
        """What was asked for, one after the other; each has a `section` and can `save` its tables."""
        from cxr.localisation.maps import choose_methods
        from cxr.localisation.run import run_localisation, run_shortcuts

        patients = patients_of(self.recipe, self.args)
        if self.boxes:
            yield run_localisation(
                restored, self.boxes, data_dir=self.args.data_dir, patients=patients, held_out=set(dataset.names),
                aliases=self.recipe.box_aliases, box_size=self.args.box_size or None,
                methods=choose_methods(self.args.method), main=self.recipe.method, tolerance=self.args.tolerance,
                options=self.options)
        if self.args.shortcut:
            # `all` stands for the recipe's method here: a whole test list with every method would take hours.
            yield run_shortcuts(restored, dataset, patients=patients,
                                methods=choose_methods(self.args.method, self.recipe.method), options=self.options)


def main(args: argparse.Namespace) -> None:
    recipe = recipes()[args.recipe]
    if (args.boxes or args.shortcut) and (args.predictions or args.compare or args.fit):
        from cxr.errors import InputError
        raise InputError("--boxes and --shortcut need a checkpoint on a test list: call them without --predictions, "
                         "--compare and --fit.")
    if args.predictions or args.compare:
        (judge_predictions if args.predictions else compare_predictions)(recipe, args)
    else:
        args.ckpt = args.ckpt or Path(recipe.published or f"output/{args.recipe}/best.pdparams")
        (fit_thresholds if args.fit else judge_checkpoint)(recipe, args)


def judge_checkpoint(recipe: Recipe, args: argparse.Namespace) -> None:
    """The report of a checkpoint on the test list."""
    from cxr.evaluation import run as evaluation
    from cxr.evaluation.report import printed
    from cxr.models.restore import restore
    from cxr.utils import distributed

    distributed.start()
    evidence = Evidence(recipe, args)
    restored = restore(recipe, args.ckpt, recipe.preprocess, recipe.arch_of(args))
    dataset = recipe.test_set(args, restored.class_names, args.ckpt)
    folder = writable(args.save_dir or args.ckpt.parent / "eval")
    judgement = evaluation.judge_checkpoint(recipe, args.ckpt, restored, dataset, patients=patients_of(recipe, args),
                                            folder=folder, scoring=scoring(args), bootstrap=bootstrap(args))
    if judgement is None:                          # another of several processes has it
        return
    print(judgement.text)
    sections = list(judgement.sections)
    for result in evidence.results(restored, dataset):
        print(printed(result.section))
        result.save(folder)
        sections.append(result.section)
    save(folder, judgement.title, sections)


def fit_thresholds(recipe: Recipe, args: argparse.Namespace) -> None:
    """Thresholds and temperature from the validation list."""
    from cxr.evaluation import run as evaluation
    from cxr.metrics.thresholds import parse_rule
    from cxr.models.restore import restore

    parse_rule(args.fit)
    restored = restore(recipe, args.ckpt, recipe.preprocess, recipe.arch_of(args))
    dataset = recipe.val_set(args, restored.class_names, args.ckpt)
    print(evaluation.fit_thresholds(args.ckpt, restored, dataset, args.fit, scoring(args)))


def judge_predictions(recipe: Recipe, args: argparse.Namespace) -> None:
    """The report of stored scores."""
    from cxr.evaluation import run as evaluation

    stored = stored_predictions(recipe, args, [args.predictions])
    folder = writable(args.save_dir or args.predictions.parent / "report")
    judgement = evaluation.judge_predictions(recipe, stored, args.ckpt, bootstrap(args))
    print(judgement.text)
    save(folder, judgement.title, judgement.sections)


def compare_predictions(recipe: Recipe, args: argparse.Namespace) -> None:
    """The report of the difference of two systems."""
    from cxr.evaluation import run as evaluation
    from cxr.evaluation.comparison import short_names

    titles = short_names(args.compare)
    stored = stored_predictions(recipe, args, args.compare)
    folder = writable(args.save_dir or args.compare[0].parent / "report")
    judgement = evaluation.compare_predictions(recipe, stored, titles, bootstrap(args))
    print(judgement.text)
    save(folder, judgement.title, judgement.sections)


def stored_predictions(recipe: Recipe, args: argparse.Namespace, paths: Sequence[Path]) -> Stored:
    """The scores in `paths`, with the labels that the flags name."""
    from cxr.errors import InputError
    from cxr.evaluation.run import read_stored

    if not args.labels:
        raise InputError("--predictions and --compare need the truth: name the list with --labels.")
    class_names = args.class_names.split(",") if args.class_names else None
    return read_stored(recipe, paths, args.labels, class_names, patients_of(recipe, args))


def patients_of(recipe: Recipe, args: argparse.Namespace) -> Callable[[Sequence[str]], list[str]]:
    """Names of images -> their patients."""
    return lambda names: recipe.patients(args, names)


def scoring(args: argparse.Namespace) -> Scoring:
    """What the flags say about computing scores."""
    from cxr.evaluation.run import Scoring
    return Scoring(ten_crop=args.ten_crop, batch_size=args.batch_size, engine=args.engine, precision=args.precision,
                   workers=args.num_workers)


def bootstrap(args: argparse.Namespace) -> Bootstrap:
    """What the flags say about intervals."""
    from cxr.evaluation.run import Bootstrap
    return Bootstrap(resamples=args.resamples, seed=args.seed)


def save(folder: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the report and say where it is."""
    from cxr.evaluation.report import save_report
    page = save_report(folder, title, sections)
    print(f"The report is {page}; pictures, report.md and report.json lie beside it.")


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args), paddle=not (args.predictions or args.compare), device=args.device)
