"""What `cam` prints and writes besides the pictures: scores, and whether the maps are faithful."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from paddle.nn.functional import softmax
from prettytable import PrettyTable

from cxr.cam.faithfulness import evaluate, randomisation
from cxr.cam.maths import rescale, upsample
from cxr.data.images import read_image
from cxr.explain.exports import guided_path
from cxr.explain.pipeline import Explained, Explainer, chosen_classes
from cxr.metrics.thresholds import Operating, remark
from cxr.utils.files import write_csv
from cxr.utils.progress import progress

_MEASURES = (("deletion", "lower"), ("insertion", "higher"), ("average_drop", "lower"), ("increase", "higher"),
             ("road", "higher"))


def older_files(save_dir: Path, done: Explained) -> int:
    """How many pictures of earlier runs lie in the folder, which the new scores.csv says nothing about."""
    own = {path for picture in done.pictures.values() for path in (picture, guided_path(picture))}
    return sum(path not in own for path in Path(save_dir).rglob("*.png"))


def summary(done: Explained, save_dir: Path) -> str:
    """How many pictures were drawn and where they are, with a word on older ones in the same folder."""
    pictures = "1 picture" if len(done.pictures) == 1 else f"{len(done.pictures)} pictures"
    lines = [f"{pictures} and scores.csv are in {save_dir}."]
    if older := older_files(save_dir, done):
        lines.append(f"{older} older picture{' lies' if older == 1 else 's lie'} there too: scores.csv says nothing "
                     f"about {'it' if older == 1 else 'them'}.")
    return "\n".join(lines)


def write_scores(path: Path, done: Explained, class_names: Sequence[str]) -> None:
    """Write `scores.csv`: one row an image, the probability of every class."""
    write_csv(path, ["image", *class_names],
              ([name, *(f"{score:.7g}" for score in row)] for name, row in done.scores.items()))


def score_table(done: Explained, class_names: Sequence[str], operating: Operating | None = None,
                most: int = 20) -> str:
    """The probabilities for people: all classes of a single image, the three highest of each of several.

    With thresholds those at or above theirs carry a star, and a single image gets them in columns of their own.
    """
    limits = operating.thresholds if operating else {}

    def score(row: np.ndarray, k: int) -> str:
        star = "*" if row[k] >= limits.get(class_names[k], np.inf) else " " * bool(limits)
        return f"{row[k] * 100:.2f} %{star}"

    told = f"\n* at or above its threshold ({operating.rule}, {operating.fitted_on})" if limits else ""
    if len(done.scores) == 1:
        (name, row), = done.scores.items()
        table = PrettyTable(["Class", name, *(["Threshold and prevalence"] if operating else [])], align="r")
        for k in np.argsort(-row):
            more = [remark(class_names[k], row[k], operating)] if operating else []
            table.add_row([class_names[k], score(row, k), *more])
        table.align["Class"] = table.align["Threshold and prevalence"] = "l"
        return table.get_string() + told
    places = min(3, len(class_names))
    table = PrettyTable(["Image", *("Highest", "Second", "Third")[:places]], align="l")
    for name, row in list(done.scores.items())[:most]:
        table.add_row([name, *(f"{class_names[k]} {score(row, k)}" for k in np.argsort(-row)[:places])])
    hidden = len(done.scores) - most
    return table.get_string() + told + (f"\n... and {hidden} more images in scores.csv" if hidden > 0 else "")


def faithfulness_table(explainer: Explainer, paths: Sequence[Path], steps: int = 20, seed: int = 0) -> str:
    """Do the maps show what the model used? `cxr.cam.faithfulness` for the highest class of every image.

    Means over the images, beside those of random maps (7 x 7 noise, enlarged like a CAM), which is what a map
    must beat; then how much of the first batch's maps survives as the weights are shuffled, layer group after
    layer group from the output on.

    Args:
        explainer: of the whole network in plain Paddle, whose weights are shuffled and put back; its `forward`
            returns probabilities where the activation is "sigmoid".
        paths: the images.
        steps: of deletion and insertion.
        seed: of the noise and the shuffling.

    Returns:
        The table, and how many images it is about.
    """
    method, model, batch_size = explainer.method, explainer.method.model, explainer.batch_size
    preprocess = explainer.provenance.preprocess
    options = {"aug_smooth": explainer.provenance.aug_smooth, "eigen_smooth": explainer.provenance.eigen_smooth}
    probability = softmax if model.activation == "softmax" else None
    rng = np.random.default_rng(seed)
    sums = {name: np.zeros((len(_MEASURES), 0)) for name in ("method", "random")}
    cascade = []
    for start in progress(range(0, len(paths), batch_size), desc="faithfulness", unit="batch"):
        x = np.stack([preprocess(read_image(path)) for path in paths[start:start + batch_size]])
        maps = method(x, **options)
        classes = chosen_classes(method, method.scores.numpy())[:, 0]
        noise = rescale(upsample(rng.random((len(x), 1, 7, 7), "float32"), x.shape[2:]))[:, 0]
        for name, judged in (("method", maps), ("random", noise)):
            result = evaluate(model, x, judged, classes, probability, steps=steps)
            sums[name] = np.concatenate([sums[name], [result[measure] for measure, _ in _MEASURES]], axis=1)
        if not cascade:
            cascade = randomisation(model, lambda *call: method(*call, **options), x, classes, stages=4, seed=seed)
    table = PrettyTable(["Measure", type(method).__name__, "Random map", "Better is"], align="r")
    for index, (measure, better) in enumerate(_MEASURES):
        table.add_row([measure, *(f"{sums[name][index].mean():.3f}" for name in ("method", "random")), better])
    for layer, similarity in cascade:
        table.add_row([f"similarity, shuffled to {layer or 'the input'}", f"{similarity.mean():.3f}", "", "near 0"])
    table.align["Measure"] = table.align["Better is"] = "l"
    return f"{table.get_string()}\n{len(paths)} images, the highest class of each."
