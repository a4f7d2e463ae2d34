#!/usr/bin/env python
"""The whole road in three minutes, offline: draw phantom X-rays, train, evaluate, explain."""
from __future__ import annotations

import argparse
from pathlib import Path

from _cli import add_device, parser, positive, run, writable

EXAMPLES = """\
  python tools/demo.py
  python tools/demo.py --save_dir /tmp/demo --epoch 2                   # quicker, and worse"""


def arguments() -> argparse.Namespace:
    main = parser("Draw phantom chest X-rays with four findings, train a ResNet18 on them, evaluate it on\n"
                  "held-out patients, draw Grad-CAM pictures, and count how often the map's peak lies in the\n"
                  "finding's true box. Needs no data and no network; about two minutes on 2 CPU cores.", EXAMPLES)
    main.add_argument("--save_dir", type=Path, default=Path("output/demo"),
                      help="folder for the results (default: %(default)s)")
    main.add_argument("--per_class", type=positive, default=200, help="phantoms of each class (default: %(default)s)")
    main.add_argument("--epoch", type=positive, default=5, help="epochs of training (default: %(default)s)")
    main.add_argument("--seed", type=int, default=0, help="seed of phantoms, split and training (default: %(default)s)")
    add_device(main)
    return main.parse_args()


def main(args: argparse.Namespace) -> None:
    from covid_resnet.demo import run_demo

    result = run_demo(writable(args.save_dir), args.per_class, args.epoch, args.seed)
    print(result.table)
    print(f"Test accuracy {result.accuracy:.3f} on {result.images} phantoms of patients not trained on.\n"
          f"Grad-CAM's peak lies in the true box {result.hit_rate:.0%} of the time; chance is {result.chance:.0%} "
          f"({result.hit_rate / result.chance:.1f} times).\n"
          f"Look at {args.save_dir / 'demo.png'}; the other pictures, weights and figures are beside it.")


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args), device=args.device)
