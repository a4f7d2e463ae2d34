#!/usr/bin/env python
"""Say what was found on this machine: what to paste into a bug report."""
from __future__ import annotations

import argparse
import sys

from _cli import parser, run

EXAMPLES = """\
  python tools/doctor.py
  CXR_DEVICE=gpu:1 python tools/doctor.py                               # what a command with --device gpu:1 would do"""


def arguments() -> argparse.Namespace:
    main = parser("Say what was found on this machine: versions, processor, memory, GPUs and driver, whether each\n"
                  "device computes known answers correctly (checked afresh, a few seconds each), engines, cache, and\n"
                  "what is wrong, with the remedy. Nothing is sent anywhere, and the home folder is not named.",
                  EXAMPLES)
    return main.parse_args()


def main() -> int:
    from cxr.device.diagnosis import diagnose

    def engines() -> tuple[str, ...]:
        from cxr.inference.predictor import fast_engines  # imports Paddle, which may be what is wrong
        return fast_engines()

    found = diagnose(engines, lambda title: print(f"looking at {title} ...", file=sys.stderr))
    print(found.text())
    return 2 if found.problems else 0


if __name__ == "__main__":
    arguments()
    run(main, paddle=False)
