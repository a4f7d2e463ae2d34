#!/usr/bin/env python
"""How fast is it, side by side in one run."""
from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from _cli import ROOT, add_device, parser, positive, run

if TYPE_CHECKING:
    from _race import Timing
    from paddle import Tensor, nn

    Races = Iterator[tuple[str, list[Timing], int]]            # title, timings, images in a run (0: not of images)

EXAMPLES = """\
  python tools/benchmark.py inference                                   # scores and maps, images a second
  python tools/benchmark.py inference --peer "python my_runner.py"      # another program beside ours
  python tools/benchmark.py pipeline --images dataset/images --count 100
  python tools/benchmark.py cam --batch_size 8 --rounds 11 --json cam.json"""

# Paddle as the published scripts run it: it takes one thread where nothing is set, and MKL chooses for itself.
PLAIN = {"OMP_NUM_THREADS": "1", "MKL_DEBUG_CPU_TYPE": ""}


def arguments() -> argparse.Namespace:
    main = parser("Time things fairly: the candidates take turns, and medians and ratios are printed. They are\n"
                  "compared with plain Paddle as the published scripts run it, in a process of its own.\n"
                  "  inference  in memory: scores and all 14 maps of CheXNet, scores and features of ResNet50\n"
                  "  pipeline   files in, files out: CheXNet's montages of a folder of 1024 x 1024 X-rays, and the\n"
                  "             scores of ten crops (each candidate's figures are for the whole folder)\n"
                  "  train      one training step of ResNet50\n"
                  "  startup    whole processes: Python, Paddle's import, cam --help, cam of one image\n"
                  "  cam        the maps of all classes by each CAM method, against one bare forward pass of the same\n"
                  "             model: CheXNet, ResNet50, and that ResNet50 without its split into features and head",
                  EXAMPLES)
    main.add_argument("what", choices=(*RACES, *WORKERS), metavar="|".join(RACES), help="what to time")
    main.add_argument("--batch_size", type=positive, default=8, help="images in each run (default: %(default)s)")
    main.add_argument("--rounds", type=positive, help="turns of each candidate (default: 7; pipeline: 3)")
    main.add_argument("--peer", metavar="CMD", action="append", default=[],
                      help="inference and train: a program that prints `ready`, then runs once for every line that it "
                           "reads and prints a line; may be given several times")
    main.add_argument("--bfloat16", action="store_true",
                      help="inference, pipeline: also the fastest engine at this precision")
    add_device(main)
    main.add_argument("--images", type=Path, metavar="FOLDER",
                      help="pipeline: X-rays, repeated up to --count (default: phantoms of 1024 x 1024)")
    main.add_argument("--count", type=positive, default=100, metavar="N",
                      help="pipeline: montages to draw; a fifth as many images get ten crops (default: %(default)s)")
    main.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)        # where a worker draws its montages
    main.add_argument("--json", type=Path, metavar="FILE", help="also write machine, seconds and ratios to this file")
    return main.parse_args()


def main(args: argparse.Namespace) -> None:
    from _race import machine, save_timings, serve, timing_table

    if args.what in WORKERS:
        serve(WORKERS[args.what](args))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    args.rounds = args.rounds or (3 if args.what == "pipeline" else 7)
    sections = {}
    for title, timings, images in RACES[args.what](args):
        sections[title] = timings
        print(timing_table(title, timings, images), flush=True)
    if args.json:
        save_timings(args.json, sections)


def raced(candidates: Mapping[str, Callable[[], object]], args: argparse.Namespace, first: str | None = None,
          peers: Sequence[str] = ()) -> list[Timing]:
    """The race of `candidates` against the plain worker `first`, and against the peers' commands."""
    from _race import Worker, race
    flags = [f"--{name}={getattr(args, name)}" for name in ("batch_size", "count", "images", "scratch")
             if getattr(args, name)]
    workers = {"plain Paddle": Worker([sys.executable, __file__, first, *flags], PLAIN)} if first else {}
    workers.update({command: Worker(shlex.split(command), {}) for command in peers})
    try:
        return race({**workers, **candidates}, args.rounds)
    finally:
        for worker in workers.values():
            worker.close()


def compared(engines: Sequence[str], args: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Name -> engine and precision; with --bfloat16 also the fastest one at that."""
    kinds = {name: (name, "float32") for name in engines}
    return {**kinds, f"{engines[0]}, bfloat16": (engines[0], "bfloat16")} if args.bfloat16 else kinds


def inference(args: argparse.Namespace) -> Races:
    """CheXNet's scores and maps, and ResNet50's scores and features."""
    from _published import batch, network

    from cxr.cam import CAM
    from cxr.inference.predictor import EngineModel, Predictor, fast_engines, precision_cost

    x, model, engines = batch(args.batch_size), network("chexnet"), fast_engines()
    kinds = {"our settings, dygraph": ("dygraph", "float32"), **compared(engines, args)}
    predictors = {name: Predictor(model, engine, precision=precision) for name, (engine, precision) in kinds.items()}
    maps = {name: partial(CAM(EngineModel(model, predictor), EngineModel.LAYER), x, targets="all")
            for name, predictor in predictors.items()}
    bare = {f"{name}, scores alone": partial(predictors[name].logits, x) for name in engines}
    yield "CheXNet, 14 maps", raced({**maps, **bare}, args, "plain-chexnet-cam", args.peer), args.batch_size
    if args.bfloat16:
        print(precision_cost(predictors[f"{engines[0]}, bfloat16"], model, [(image, 0) for image in x]))
    model = network("resnet50")
    predictors = {name: Predictor(model, engine, precision=precision) for name, (engine, precision) in kinds.items()}
    yield ("ResNet50, features", raced({name: partial(predictor, x) for name, predictor in predictors.items()},
                                       args, "plain-resnet50"), args.batch_size)


def pipeline(args: argparse.Namespace) -> Races:
    """Montages of a folder, and ten-crop scores of a part of it."""
    from _published import network

    from chexnet.data import ChestXrayDataSet
    from chexnet.labels import CLASS_NAMES
    from chexnet.recipe import CheXNetRecipe
    from cxr.cam import CAM
    from cxr.data.transforms import TenCrop
    from cxr.explain.explanation import Provenance
    from cxr.explain.pipeline import Explainer
    from cxr.inference.predictor import EngineModel, Predictor, fast_engines, predict
    from cxr.models.catalogue import Checkpoint

    recipe, model = CheXNetRecipe(), network("chexnet")
    predictors = {name: Predictor(model, engine, precision=precision)
                  for name, (engine, precision) in compared(fast_engines(), args).items()}
    with tempfile.TemporaryDirectory() as scratch:
        args.images, args.scratch = args.images or phantoms(Path(scratch, "phantoms")), Path(scratch)
        paths = repeated(args)
        named = [(path, Path(f"{number}.png")) for number, path in enumerate(paths)]
        provenance = Provenance(
            checkpoint=Checkpoint(Path("drawn.pdparams"), recipe.name, CLASS_NAMES, ""), method="cam",
            preprocess=recipe.cam_preprocess, activation=model.activation, layer=recipe.layer(model))
        explainers = {name: Explainer(method=CAM(EngineModel(model, predictor), EngineModel.LAYER),
                                      provenance=provenance, batch_size=args.batch_size)
                      for name, predictor in predictors.items()}
        ours = {f"tools/cam.py, {name}": partial(explainer.run, named, Path(scratch, "cams"))
                for name, explainer in explainers.items()}
        yield f"{len(paths)} montages", raced(ours, args, "plain-montages"), len(paths)

        some = paths[:tenth(args)]
        links = Path(scratch, "linked")          # a list names an image once
        links.mkdir()
        for number, path in enumerate(some):
            (links / f"{number}.png").symlink_to(path.resolve())
        lines = "".join(f"{number}.png{' 0' * len(CLASS_NAMES)}\n" for number in range(len(some)))
        Path(scratch, "list.txt").write_text(lines, encoding="utf-8")
        dataset = ChestXrayDataSet(links, Path(scratch, "list.txt"), TenCrop(recipe.preprocess))
        ours = {f"tools/eval.py, {name}": partial(predict, predictor, dataset, 3)
                for name, predictor in predictors.items()}
        yield f"{len(some)} x 10 crops", raced(ours, args, "plain-ten-crop"), len(some)


def phantoms(folder: Path) -> Path:
    """Eight phantoms of 1024 x 1024 in `folder`."""
    from cxr.data.phantom import write_folder
    write_folder(folder, per_class=2, size=1024)
    return folder


def repeated(args: argparse.Namespace) -> list[Path]:
    """As many paths of images as `--count` says, those of `--images` over and over."""
    from cxr.data.images import find_images
    return list(islice(cycle(path for path, _ in find_images([args.images])), args.count))


def tenth(args: argparse.Namespace) -> int:
    """How many of `--count` images get ten crops."""
    return max(1, args.count // 5)


def train(args: argparse.Namespace) -> Races:
    """One training step of ResNet50."""
    from _published import TrainingStep
    yield ("ResNet50 step", raced({"our settings": TrainingStep(args.batch_size)}, args, "plain-train", args.peer),
           args.batch_size)


def startup(args: argparse.Namespace) -> Races:
    """Whole processes. The image's engine is in the cache, as after any earlier use."""
    from _published import network
    from _race import race

    from chexnet.labels import CLASS_NAMES
    from cxr.data.phantom import write_folder
    from cxr.weights import save_weights
    with tempfile.TemporaryDirectory() as scratch:
        folder, weights = Path(scratch, "phantoms"), Path(scratch, "chexnet.pdparams")
        write_folder(folder, per_class=1, size=1024)
        save_weights(network("chexnet"), weights, {"class_names": CLASS_NAMES})
        image = next(folder.rglob("*.png"))
        cam = [str(ROOT / "tools" / "cam.py")]
        commands = {"import paddle": ["-c", "import cxr, paddle"], "python alone": ["-c", ""],
                    "cam --help": [*cam, "--help"],
                    "cam of one image": [*cam, "chexnet", str(image), "--ckpt", str(weights), "--save_dir", scratch]}
        calls = {name: partial(subprocess.run, [sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
                 for name, command in commands.items()}
        yield "process", race(calls, args.rounds), 0


def cam(args: argparse.Namespace) -> Races:
    """The maps of all classes, model after model; the first candidate of each is its bare forward pass."""
    import paddle
    from _published import batch, forward, network

    from cxr.cam import METHODS

    class WithoutSplit(paddle.nn.Layer):
        """A model that the toolbox can only call as a whole."""

        def __init__(self, inner: nn.Layer):
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    fast = ("gradcam", "gradcam++", "xgradcam", "layercam", "eigencam", "eigengradcam", "ablationcam")
    models = {
        "CheXNet, 14 classes": (network("chexnet"), "densenet121.batch_norm", ("cam", *fast)),
        "ResNet50, 4 classes": (network("resnet50"), "block.15", ("cam", *fast)),
        # Without the split every channel that AblationCAM leaves out costs a forward pass, so it is missing here.
        "ResNet50 without split": (WithoutSplit(network("resnet50")), "inner.block.15", fast[:-1]),
    }
    x = batch(args.batch_size)
    for title, (model, layer, methods) in models.items():
        model.eval()
        candidates = {"one forward": partial(forward, model, x)}
        for name in methods:
            candidates[name] = partial(METHODS[name](model, layer), x, targets="all")
        yield title, raced(candidates, args), args.batch_size


def plain_forward(name: str, args: argparse.Namespace) -> Callable[[], object]:
    """A `Worker` of the bare model, as the published code builds it."""
    from _published import batch, forward, in_published_order, network
    return partial(forward, in_published_order(network(name)), batch(args.batch_size))


def plain_train(args: argparse.Namespace) -> Callable[[], object]:
    """A `Worker` of the COVID notebook's training step."""
    from _published import TrainingStep
    return TrainingStep(args.batch_size)


def plain_montages(args: argparse.Namespace) -> Callable[[], object]:
    """A `Worker` of the CAM notebook's montages."""
    from _published import in_published_order, montages, network
    return partial(montages, in_published_order(network("chexnet-cam")), repeated(args), args.scratch)


def plain_ten_crop(args: argparse.Namespace) -> Callable[[], object]:
    """A `Worker` of Paddle-CheXNet's evaluation."""
    from _published import in_published_order, network, ten_crop_scores
    return partial(ten_crop_scores, in_published_order(network("chexnet")), repeated(args)[:tenth(args)])


RACES = {"inference": inference, "pipeline": pipeline, "train": train, "startup": startup, "cam": cam}
WORKERS = {"plain-chexnet-cam": partial(plain_forward, "chexnet-cam"),
           "plain-resnet50": partial(plain_forward, "resnet50"), "plain-train": plain_train,
           "plain-montages": plain_montages, "plain-ten-crop": plain_ten_crop}

if __name__ == "__main__":
    args = arguments()
    if args.device:
        os.environ["CXR_DEVICE"] = args.device           # for the workers
    run(lambda: main(args), device=args.device)
