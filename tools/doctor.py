#!/usr/bin/env python
"""Tell what was found on this machine: what one pastes into a bug report."""
import sys

from _cli import parser, run

EXAMPLES = """\
  python tools/doctor.py
  CXR_DEVICE=gpu:1 python tools/doctor.py                               # what a command with --device gpu:1 would do"""


def arguments():
    main = parser("Tell what was found on this machine: versions, processor, memory, GPUs and driver, whether each\n"
                  "device computes known answers right (asked anew, some seconds each), engines, cache, and what is\n"
                  "wrong with it, with the remedy. Nothing is sent anywhere, and the home folder is not named.",
                  EXAMPLES)
    return main.parse_args()


def main() -> int:
    from cxr.device.diagnosis import diagnose

    def engines():
        from cxr.inference.predictor import fast_engines  # imports Paddle, which may be what is wrong
        return fast_engines()

    found = diagnose(engines, lambda title: print(f"looking at {title} ...", file=sys.stderr))
    print(found.text())
    return 2 if found.problems else 0


if __name__ == "__main__":
    arguments()
    run(main, paddle=False)
