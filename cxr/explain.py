"""Heat maps for many images: read, predict, explain, draw and write, one batch after the other."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

import numpy as np
from paddle.nn.functional import softmax
from prettytable import PrettyTable

from cxr.cam.base import BaseCAM
from cxr.cam.faithfulness import evaluate, randomisation
from cxr.cam.guided import GuidedBackprop, times, to_picture
from cxr.cam.maths import rescale, upsample
from cxr.distributed import gather, share, world
from cxr.errors import InputError, naming
from cxr.files import write_csv
from cxr.images import read_image
from cxr.metrics import scores_from_logits
from cxr.parallel import default_workers, ordered_map
from cxr.pictures import ascii_names, cam_montage, caption, montage, save_picture
from cxr.preprocess import Preprocess
from cxr.progress import progress


@dataclass
class Explained:
    """What became of a run, by name: probabilities (K,), picture, image file; and a sentence for each failure."""
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False


def choose_classes(text: str, class_names: Sequence[str]) -> str | list[int]:
    """`all`, `top`, or names separated by commas, to what `explain` takes. Raises `InputError` on unknown names."""
    if text in ("all", "top"):
        return text
    known = {name.lower(): index for index, name in enumerate(class_names)}
    chosen = [known.get(name.strip().lower()) for name in text.split(",")]
    if None in chosen:
        wrong = text.split(",")[chosen.index(None)].strip()
        raise InputError(f"there is no class '{wrong}': choose from {', '.join(class_names)}, all or top.")
    return chosen


def output_paths(images: Sequence[tuple[Path, Path]], folder: Path) -> list[Path]:
    """A path below `folder` for each `(path, name)` of `cxr.images.find_images`: `NAME.png` in place of its suffix.

    Images that differ in their suffix alone keep it (`a.png` and `a.jpg.png`), with a number where that is taken too.
    Raises `InputError` where a picture would take the place of an image to be read.
    """
    paths, taken = [], set()
    for _, name in images:
        choices = chain([name.with_suffix(".png"), Path(f"{name}.png")],
                        (Path(f"{name}.{number}.png") for number in count(2)))
        paths.append(next(folder / choice for choice in choices if choice not in taken))
        taken.add(paths[-1].relative_to(folder))
    sources = {path.resolve() for path, _ in images}
    for path in paths:
        for written in (path, guided_path(path)):
            if written.resolve() in sources:
                raise InputError(f"the picture {written} would overwrite an image to be read: choose another "
                                 "--save_dir.")
    return paths


def guided_path(path: Path) -> Path:
    """Where the guided picture goes that belongs to the picture `path`."""
    return path.with_suffix(".guided.png")


def explain(method: BaseCAM, activation: str, preprocess: Preprocess, class_names: Sequence[str],
            images: Sequence[tuple[Path, Path]], save_dir: Path, classes: str | list[int] = "all",
            batch_size: int = 8, workers: int | None = None, guided: GuidedBackprop | None = None,
            **options) -> Explained:
    """Draw a CAM picture of every image: the part that the network saw, then one tile for each chosen class.

    Args:
        method: a CAM method on the model.
        activation: of the model, "sigmoid" or "softmax".
        preprocess: what the model was trained with.
        images: `(path, name)` pairs; `name` is where the picture goes below `save_dir`, as `.png`.
        classes: "all", "top" (the highest of each image), or indices.
        guided: if given, a second picture `NAME.guided.png` shows its gradients times each map.
        options: passed on to the method's call (`aug_smooth`, `eigen_smooth`, `scale`).

    An image that cannot be read is skipped and its sentence kept in `.failures`; the others are still done. After
    Ctrl-C the images drawn so far are returned, with `.interrupted` set. Several processes share the images, and each
    returns what all did.
    """
    workers = default_workers() if workers is None else workers
    done = Explained()
    paths, names = output_paths(images, Path(save_dir)), ascii_names(class_names)

    def read(index: int):
        path = images[index][0]
        try:
            with naming(path):
                view = preprocess.view(read_image(path))
                return index, view, preprocess.to_input(view)
        except InputError as error:
            return index, None, str(error)

    def draw(item) -> None:
        index, view, maps, shown, scores, products = item
        captions = [f"{names[k]}: {scores[k] * 100:.2f}%" for k in shown]
        columns = min(5, 1 + len(shown))
        save_picture(paths[index], cam_montage(view, maps, captions, columns))
        if products is not None:
            tiles = [caption(to_picture(product), text) for product, text in zip(products, captions)]
            save_picture(guided_path(paths[index]), montage([caption(view, "Original"), *tiles], columns))
        done.pictures[images[index][1].as_posix()] = paths[index]
        bar.update()

    def explained() -> Iterator[tuple]:
        for batch in _in_batches(ordered_map(read, indices, workers, 2 * batch_size), batch_size, done):
            x = np.stack([inputs for _, _, inputs in batch])
            targets = {"all": "all", "top": None}[classes] if isinstance(classes, str) else [classes] * len(batch)
            maps = method(x, targets=targets, **options)
            maps = maps if maps.ndim == 4 else maps[:, None]
            scores = scores_from_logits(method.scores.numpy()[:, None], activation)
            chosen = _chosen(method, scores)
            products = times(guided(x, chosen), maps) if guided else [None] * len(batch)
            for (index, view, _), own, shown, row, product in zip(batch, maps, chosen, scores, products):
                name = images[index][1].as_posix()
                done.scores[name], done.sources[name] = row, images[index][0]
                yield index, view, own, shown, row, product

    indices = share(range(len(images)))
    with progress(None, total=len(indices), desc="cam") as bar:
        try:
            for _ in ordered_map(draw, explained(), workers, 2 * batch_size):
                pass                               # `draw` moves the bar: results come in order, and late
        except KeyboardInterrupt:
            done.interrupted = True
            done.scores = {name: row for name, row in done.scores.items() if name in done.pictures}
            done.sources = {name: path for name, path in done.sources.items() if name in done.pictures}
    return done if world() == 1 else _merged(done, [name.as_posix() for _, name in images])


def _merged(done: Explained, order: Sequence[str]) -> Explained:
    """What all processes did, in the order of the images."""
    parts = gather({"scores": {name: row.tolist() for name, row in done.scores.items()},
                    "pictures": {name: str(path) for name, path in done.pictures.items()},
                    "sources": {name: str(path) for name, path in done.sources.items()},
                    "failures": done.failures, "interrupted": done.interrupted})

    def in_order(field: str, kind) -> dict:
        whole = {name: value for part in parts for name, value in part[field].items()}
        return {name: kind(whole[name]) for name in order if name in whole}

    return Explained(in_order("scores", np.float32), in_order("pictures", Path), in_order("sources", Path),
                     [sentence for part in parts for sentence in part["failures"]],
                     any(part["interrupted"] for part in parts))


def _chosen(method: BaseCAM, scores: np.ndarray) -> np.ndarray:
    """(B, n) classes of the last call; a method that asked for none (EigenCAM) is shown under the highest."""
    return scores.argmax(axis=1)[:, None] if method.classes is None else method.classes


def _in_batches(items, batch_size: int, done: Explained) -> Iterator[list]:
    """Group the readable images; note the sentences of the others."""
    batch = []
    for item in items:
        if item[1] is None:
            done.failures.append(item[2])
            continue
        batch.append(item)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def write_scores(path: Path, done: Explained, class_names: Sequence[str]) -> None:
    """Write `scores.csv`: one row an image, the probability of every class."""
    write_csv(path, ["image", *class_names],
              ([name, *(f"{score:.7g}" for score in row)] for name, row in done.scores.items()))


def score_table(done: Explained, class_names: Sequence[str], most: int = 20) -> str:
    """The probabilities for people: all classes of a single image, the three highest of each of several."""
    if len(done.scores) == 1:
        (name, row), = done.scores.items()
        table = PrettyTable(["Class", name], align="r")
        table.add_rows([[class_names[k], f"{row[k] * 100:.2f} %"] for k in np.argsort(-row)])
        table.align["Class"] = "l"
        return table.get_string()
    places = min(3, len(class_names))
    table = PrettyTable(["Image", *("Highest", "Second", "Third")[:places]], align="l")
    for name, row in list(done.scores.items())[:most]:
        table.add_row([name, *(f"{class_names[k]} {row[k] * 100:.2f} %" for k in np.argsort(-row)[:places])])
    hidden = len(done.scores) - most
    return table.get_string() + (f"\n... and {hidden} more images in scores.csv" if hidden > 0 else "")


_MEASURES = (("deletion", "lower"), ("insertion", "higher"), ("average_drop", "lower"), ("increase", "higher"),
             ("road", "higher"))


def faithfulness_table(method: BaseCAM, model, preprocess: Preprocess, paths: Sequence[Path], batch_size: int = 8,
                       steps: int = 20, seed: int = 0, **options) -> str:
    """Do the maps show what the model used? `cxr.cam.faithfulness` for the highest class of every image.

    Means over the images, beside those of random maps (7 x 7 noise, enlarged like a CAM), which is what a map
    must beat; then how much of the first batch's maps survives as the weights are shuffled, layer group after
    layer group from the output on. `forward` returns probabilities for a "sigmoid" model.
    """
    probability = softmax if model.activation == "softmax" else None
    rng = np.random.default_rng(seed)
    sums = {name: np.zeros((len(_MEASURES), 0)) for name in ("method", "random")}
    cascade = []
    for start in progress(range(0, len(paths), batch_size), desc="faithfulness", unit="batch"):
        x = np.stack([preprocess(read_image(path)) for path in paths[start:start + batch_size]])
        maps = method(x, **options)
        classes = _chosen(method, method.scores.numpy())[:, 0]
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
