#!/usr/bin/env python
"""Bring weights in from PyTorch and paddle.vision, and out again for torchvision."""
from __future__ import annotations

import argparse
from pathlib import Path

from _cli import parser, recipes, run

EXAMPLES = """\
  python tools/convert.py chexnet model.pth.tar pretrained_models/model.pdparams
  python tools/convert.py covid_resnet resnet50.pdparams imagenet50.pdparams --backbone
  python tools/convert.py chexnet output/chexnet/best.pdparams chexnet.pth --to torch
  python tools/convert.py --list model.pth.tar"""


def arguments() -> argparse.Namespace:
    main = parser("Convert weights of torchvision (also those of CheXNet's PyTorch code), paddle.vision or this\n"
                  "project. The architecture and the number of classes are found in the file. PyTorch is not needed,\n"
                  "and nothing in the file is run. Files for torchvision give logits: apply sigmoid or softmax.",
                  EXAMPLES)
    main.add_argument("recipe", nargs="?", choices=list(recipes()), metavar="MODEL",
                      help=f"what the weights are for: {', '.join(recipes())}")
    main.add_argument("source", nargs="?", type=Path, metavar="FILE", help="weights file to read")
    main.add_argument("target", nargs="?", type=Path, metavar="NEW", help="weights file to write")
    main.add_argument("--to", choices=("paddle", "torch"), default="paddle",
                      help="write a checkpoint of this project (.pdparams), or a file for torchvision's own class "
                           "(default: %(default)s)")
    main.add_argument("--backbone", action="store_true", help="leave the classifier out")
    main.add_argument("--class_names", metavar="NAME,NAME", type=lambda text: text.split(","),
                      help="what the outputs stand for (default: as in the file, or those of MODEL if the number "
                           "agrees)")
    main.add_argument("--preprocess", choices=("recipe", "imagenet"),
                      help="what the weights were trained with: MODEL's own preprocessing, or shorter side 256, centre "
                           "224, values 0-1, ImageNet's mean and standard deviation (default: as in the file, or "
                           "MODEL's own)")
    main.add_argument("--overwrite", action="store_true", help="replace NEW if it exists")
    main.add_argument("--list", type=Path, metavar="FILE", help="print keys and shapes of any weights file, and end")
    return main.parse_args()


def main(args: argparse.Namespace) -> None:
    from cxr.data.transforms import Preprocess
    from cxr.errors import InputError
    from cxr.models.convert import convert, read_any, save

    if args.list:
        state, meta = read_any(args.list)
        for key, value in state.items():
            print(f"{key:64} {str(value.dtype):8} {list(value.shape)}")
        print(f"{len(state)} tensors, {sum(value.size for value in state.values()):,} numbers"
              + "".join(f"; {name} {value}" for name, value in meta.items()))
        return
    if args.target is None:
        raise InputError("name MODEL, the file to read and the file to write, or --list FILE.")
    if args.target.exists() and not args.overwrite:
        raise InputError(f"{args.target} exists: choose another name, or replace it with --overwrite.")
    recipe = recipes()[args.recipe]
    preprocess = {"recipe": recipe.preprocess, "imagenet": Preprocess(), None: None}[args.preprocess]
    converted = convert(recipe, args.source, args.class_names, args.backbone, preprocess)
    written = save(converted, args.target, recipe, args.to)
    names = converted.meta.get("class_names", [])
    what = "no classifier" if args.backbone else f"{len(names)} classes ({', '.join(names[:14])}" + (
        ", ...)" if len(names) > 14 else ")")
    print(f"{args.source} is {converted.layout.source}: {len(converted.state)} weights, {what}.\n"
          f"{args.target} is written" + (f" for {written.source}." if args.to == "torch" else
                                         f"; it says preprocessing {converted.meta['preprocess']}."))


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args))
