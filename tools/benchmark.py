#!/usr/bin/env python
"""How fast is it, side by side in one run."""
import shlex
import sys
from functools import partial
from pathlib import Path

from _cli import parser, positive, run

EXAMPLES = """\
  python tools/benchmark.py inference                                   # scores and features, images a second
  python tools/benchmark.py inference --peer "python my_runner.py"      # another program beside ours
  python tools/benchmark.py cam --batch_size 8 --rounds 11 --json cam.json"""

# Paddle as the published scripts run it: it takes one thread where nothing is set, and MKL chooses for itself.
PLAIN = {"OMP_NUM_THREADS": "1", "MKL_DEBUG_CPU_TYPE": ""}


def arguments():
    main = parser("Time things fairly: the candidates take turns; medians and ratios are printed.\n"
                  "  inference  scores and last features of CheXNet and ResNet50: plain Paddle as the published\n"
                  "             scripts run it (in a process of its own), the same with our settings, and the engine\n"
                  "             of eval and cam\n"
                  "  cam        all classes' maps of each CAM method against one bare forward of the same model:\n"
                  "             CheXNet, ResNet50, and that ResNet50 without its features/head split", EXAMPLES)
    main.add_argument("what", choices=("inference", "cam", "plain-chexnet", "plain-resnet50"), metavar="inference|cam",
                      help="what to time")
    main.add_argument("--batch_size", type=positive, default=8, help="images a run (default: %(default)s)")
    main.add_argument("--rounds", type=positive, default=7, help="turns of each candidate (default: %(default)s)")
    main.add_argument("--peer", metavar="CMD", action="append", default=[],
                      help="inference: a program that prints `ready`, then runs once for every line that it reads and "
                           "prints a line; may be given several times")
    main.add_argument("--json", type=Path, metavar="FILE", help="also write machine, seconds and ratios there")
    return main.parse_args()


def main(args) -> None:
    from cxr.benchmark import machine, save_timings, serve, timing_table

    if args.what.startswith("plain-"):
        model, x = network(args.what[len("plain-"):]), images(args.batch_size)
        serve(partial(forward, model, x))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    sections = {}
    races = inference_races(args) if args.what == "inference" else cam_races(args)
    for title, timings in races:
        sections[title] = timings
        print(timing_table(title, timings, args.batch_size), flush=True)
    if args.json:
        save_timings(args.json, sections)


def network(name: str):
    """A model with random weights, in eval mode."""
    from chexnet.model import CheXNet
    from covid_resnet import ResNet
    model = CheXNet(14) if name == "chexnet" else ResNet(50, 4)
    model.eval()
    return model


def images(batch_size: int):
    import numpy as np
    return np.random.default_rng(0).standard_normal((batch_size, 3, 224, 224), "float32")


def forward(model, x):
    import paddle
    with paddle.no_grad():
        return model(paddle.to_tensor(x)).numpy()


def inference_races(args):
    """(title, timings) of both models; the first candidate is plain Paddle."""
    from cxr.benchmark import Worker, race
    from cxr.inference import Predictor

    x = images(args.batch_size)
    for name in ("chexnet", "resnet50"):
        model = network(name)
        workers = {"plain Paddle": Worker([sys.executable, __file__, f"plain-{name}", "--batch_size",
                                           str(args.batch_size)], PLAIN)}
        workers.update({command: Worker(shlex.split(command), {}) for command in args.peer})
        ours = {engine: partial(Predictor(model, engine), x) for engine in ("dygraph", "auto")}
        yield name, race({**workers, **ours}, args.rounds)
        for worker in workers.values():
            worker.close()


def cam_races(args):
    """(title, timings) of one model after the other; the first candidate of each is its bare forward."""
    import paddle

    from cxr.benchmark import race
    from cxr.cam import METHODS

    class WithoutSplit(paddle.nn.Layer):
        """A model that the toolbox can only call as a whole."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    fast = ("gradcam", "gradcam++", "xgradcam", "layercam", "eigencam", "eigengradcam", "ablationcam")
    models = {
        "CheXNet, 14 classes": (network("chexnet"), "densenet121.batch_norm", ("cam", *fast)),
        "ResNet50, 4 classes": (network("resnet50"), "block.15", ("cam", *fast)),
        # Without the split every channel that AblationCAM leaves out costs a forward, so it is left out here.
        "ResNet50 without split": (WithoutSplit(network("resnet50")), "inner.block.15", fast[:-1]),
    }
    x = images(args.batch_size)
    for title, (model, layer, methods) in models.items():
        model.eval()
        candidates = {"one forward": partial(forward, model, x)}
        for name in methods:
            candidates[name] = partial(METHODS[name](model, layer), x, targets="all")
        yield title, race(candidates, args.rounds)


if __name__ == "__main__":
    args = arguments()
    run(lambda: main(args))
