#!/usr/bin/env python
"""Show where a model looked."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import add_device, add_engine, fail, not_negative, parser, positive, recipe_parsers, recipes, run, writable

from cxr.cam.registry import REGISTRY
from cxr.models.recipe import Recipe

if TYPE_CHECKING:
    from cxr.explain.exports import Exports
    from cxr.explain.pipeline import Explainer

EXAMPLES = """\
  python tools/cam.py chexnet 00000001_000.png                          # all 14 classes, the published montage
  python tools/cam.py covid_resnet dataset/COVID --ckpt output/covid_resnet/best.pdparams
  python tools/cam.py chexnet images/ --method gradcam++ --classes Cardiomegaly,Effusion
  python tools/cam.py covid_resnet --list_layers                        # names for --layer"""


def arguments() -> argparse.Namespace:
    main = parser("Draw heat maps of every X-ray: one PNG for each image, a table of scores, and scores.csv with the\n"
                  "score of every class. An image that cannot be read is named at the end; the others are still done.",
                  EXAMPLES)
    for name, sub in recipe_parsers(main).items():
        recipe = recipes()[name]
        sub.add_argument("images", nargs="*", metavar="IMAGE|FOLDER",
                         help="PNG, JPEG, BMP, TIFF or DICOM files, or folders")
        sub.add_argument("--ckpt", type=Path, default=recipe.published or Path(f"output/{name}/best.pdparams"),
                         help="checkpoint (default: %(default)s)")
        sub.add_argument("--download", action="store_true",
                         help="first fetch the published weights if they are missing")
        sub.add_argument("--save_dir", type=Path, default=Path("output/cams"),
                         help="folder for the results (default: %(default)s)")
        sub.add_argument("--method", choices=REGISTRY, default=recipe.method, help="CAM method (default: %(default)s)")
        sub.add_argument("--layer", help="target layer by its dotted name, such as block.15 (default: the last one "
                                         "with a map); --list_layers prints them all")
        sub.add_argument("--classes", default=recipe.classes, metavar="NAME,NAME|all|top",
                         help="classes to draw: those named, all, or the one with the highest score in each image "
                              "(default: %(default)s)")
        sub.add_argument("--aug_smooth", action="store_true",
                         help="average over 6 mirrored and scaled versions of the image")
        sub.add_argument("--eigen_smooth", action="store_true",
                         help="take the first principal component of the weighted maps")
        sub.add_argument("--top_k", type=positive, metavar="N",
                         help="scorecam: try only the N channels that vary most (default: all, a forward pass each)")
        sub.add_argument("--guided", action="store_true",
                         help="also write NAME.guided.png: guided backpropagation multiplied by each map")
        sub.add_argument("--faithfulness", action="store_true",
                         help="also print whether the maps show what the model used: deletion, insertion, average "
                              "drop and ROAD beside those of a random map, and the randomisation check (takes dozens "
                              "of forward passes for each image)")
        sub.add_argument("--scale", choices=("class", "shared"), default="class",
                         help="stretch every map to the whole colour range (as published), or put all classes of an "
                              "image on one scale, highest score first, with thresholds where `eval --fit` has stored "
                              "them beside the checkpoint (default: %(default)s)")
        others = sub.add_argument_group("files for other systems, beside every picture")
        others.add_argument("--json", action="store_true", help="NAME.json: scores, thresholds, boxes, and what they "
                                                                "were made with (schema: cxr/explain/manifest.py)")
        others.add_argument("--npz", action="store_true", help="NAME.npz: the raw maps and where they lie in the image")
        others.add_argument("--dicom", action="store_true",
                            help="NAME.cam.dcm: the picture as DICOM Secondary Capture, without a patient and in a new "
                                 "study: nothing is copied from a DICOM input, not even its identifiers")
        others.add_argument("--keep_identity", action="store_true",
                            help="with --dicom: copy the patient (name, number, birth date, sex) and study of DICOM "
                                 "inputs, so that an archive files the picture beside its image; the file is then "
                                 "patient data")
        sub.add_argument("--list_layers", action="store_true",
                         help="print the names that --layer takes, with output shapes")
        add_engine(sub)
        add_device(sub)
        sub.add_argument("--batch_size", type=positive, default=8, help="images at once (default: %(default)s)")
        sub.add_argument("--num_workers", type=not_negative, metavar="N",
                         help="threads that read and write files (default: one for each core)")
        recipe.add_arch_arguments(sub.add_argument_group("for a weights file that does not name its architecture"))
    return main.parse_args()


def main(args: argparse.Namespace) -> int:
    from cxr.data.images import find_images
    from cxr.errors import InputError
    from cxr.explain.exports import Exports
    from cxr.explain.tables import faithfulness_table, score_table, summary, write_scores
    from cxr.utils import distributed
    from cxr.weights.download import fetch_published

    distributed.start()
    recipe = recipes()[args.recipe]
    if args.download:
        fetch_published(args.ckpt, recipe.downloads)
    if args.list_layers:
        return print_layers(args, recipe)
    if not args.images:
        raise InputError("name at least one image or folder.")
    exports = Exports(json=args.json, npz=args.npz, dicom=args.dicom, keep_identity=args.keep_identity)
    exports.check()
    images = find_images(args.images)
    writable(args.save_dir)
    explainer = make_explainer(args, recipe, images, exports)
    done, class_names = explainer.run(images, args.save_dir), explainer.provenance.checkpoint.class_names
    if distributed.rank() > 0:
        return 0
    if done.scores:
        write_scores(args.save_dir / "scores.csv", done, class_names)
        print(score_table(done, class_names, explainer.provenance.operating))
        print(summary(done, args.save_dir))
    if done.interrupted:
        print(f"interrupted after {len(done.pictures)} of {len(images)} images", file=sys.stderr)
        return 130
    if done.scores and args.faithfulness:
        print(faithfulness_table(explainer, list(done.sources.values())))
    for sentence in done.failures:
        fail(sentence)
    if done.failures:
        return fail(f"{len(done.failures)} of {len(images)} images could not be done, see above.")
    return 0


def make_explainer(args: argparse.Namespace, recipe: Recipe, images: Sequence[tuple[Path, Path]],
                   exports: Exports) -> Explainer:
    """The `Explainer` that the flags ask for; prints what a lower precision costs."""
    from cxr.cam import GuidedBackprop
    from cxr.explain.explanation import Provenance
    from cxr.explain.network import choose_network, cost_of_precision, make_method
    from cxr.explain.pipeline import Explainer, choose_classes
    from cxr.metrics.thresholds import read_operating
    from cxr.models.catalogue import Checkpoint
    from cxr.models.restore import restore
    from cxr.utils.files import sha256

    restored = restore(recipe, args.ckpt, recipe.cam_preprocess, recipe.arch_of(args))
    operating = read_operating(args.ckpt)
    network = choose_network(restored.model, recipe.layer(restored.model), layer=args.layer, engine=args.engine,
                             precision=args.precision, shuffles_weights=args.faithfulness)
    if args.precision != "float32":
        print(cost_of_precision(network, restored, [path for path, _ in images]))
    method = make_method(args.method, network, top_k=args.top_k)
    provenance = Provenance(
        checkpoint=Checkpoint(args.ckpt, recipe.name, restored.class_names, sha256(args.ckpt)),
        preprocess=restored.preprocess, activation=restored.model.activation, operating=operating,
        method=args.method, layer=network.layer, aug_smooth=args.aug_smooth, eigen_smooth=args.eigen_smooth,
        scale=args.scale, precision=args.precision)
    return Explainer(
        method=method, provenance=provenance, classes=choose_classes(args.classes, restored.class_names),
        guided=GuidedBackprop(restored.model) if args.guided else None, exports=exports,
        batch_size=args.batch_size, workers=args.num_workers)


def print_layers(args: argparse.Namespace, recipe: Recipe) -> int:
    """Print the names that --layer takes, of the checkpoint if there is one: they do not need any weights."""
    from cxr.cam import list_layers
    from cxr.models.restore import restore

    arch = recipe.arch_of(args)
    model = (restore(recipe, args.ckpt, recipe.cam_preprocess, arch).model if args.ckpt.exists()
             else recipe.build(len(recipe.class_names), **arch))
    for name, kind, shape in list_layers(model, recipe.cam_preprocess.input_shape):
        print(f"{name:52} {kind:20} {'not reached' if shape is None else list(shape)}")
    return 0


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args), device=args.device)
