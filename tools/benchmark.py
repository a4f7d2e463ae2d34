#!/usr/bin/env python
"""How fast is it, side by side in one run."""
from functools import partial
from pathlib import Path

from _cli import parser, positive, run

EXAMPLES = """\
  python tools/benchmark.py cam                                         # cost of each method, in forwards
  python tools/benchmark.py cam --batch_size 8 --rounds 11 --json cam.json"""


def arguments():
    main = parser("Time things fairly: the candidates take turns in one process; medians and ratios are printed.\n"
                  "  cam    all classes' maps of each CAM method against one bare forward of the same model: CheXNet,\n"
                  "         ResNet50, and that ResNet50 without its features/head split", EXAMPLES)
    main.add_argument("what", choices=("cam",), help="what to time")
    main.add_argument("--batch_size", type=positive, default=4, help="images a run (default: %(default)s)")
    main.add_argument("--rounds", type=positive, default=7, help="turns of each candidate (default: %(default)s)")
    main.add_argument("--json", type=Path, metavar="FILE", help="also write machine, seconds and ratios there")
    return main.parse_args()


def main(args) -> None:
    from cxr.benchmark import machine, save_timings, timing_table

    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    sections = {}
    for title, timings in cam_races(args.batch_size, args.rounds):
        sections[title] = timings
        print(timing_table(title, timings), flush=True)
    if args.json:
        save_timings(args.json, sections)


def cam_races(batch_size: int, rounds: int):
    """(title, timings) of one model after the other; the first candidate of each is its bare forward."""
    import numpy as np
    import paddle

    from chexnet.model import CheXNet
    from covid_resnet import ResNet
    from cxr.benchmark import race
    from cxr.cam import METHODS

    @paddle.no_grad()
    def forward(model, x):
        return model(x).numpy()

    class WithoutSplit(paddle.nn.Layer):
        """A model that the toolbox can only call as a whole."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    fast = ("gradcam", "gradcam++", "xgradcam", "layercam", "eigencam", "eigengradcam", "ablationcam")
    models = {
        "CheXNet, 14 classes": (CheXNet(14), "densenet121.batch_norm", ("cam", *fast)),
        "ResNet50, 4 classes": (ResNet(50, 4), "block.15", ("cam", *fast)),
        # Without the split every channel that AblationCAM leaves out costs a forward, so it is left out here.
        "ResNet50 without split": (WithoutSplit(ResNet(50, 4)), "inner.block.15", fast[:-1]),
    }
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((batch_size, 3, 224, 224), "float32"))
    for title, (model, layer, methods) in models.items():
        model.eval()

        candidates = {"one forward": partial(forward, model, x)}
        for name in methods:
            candidates[name] = partial(METHODS[name](model, layer), x, targets="all")
        yield title, race(candidates, rounds)


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args))
