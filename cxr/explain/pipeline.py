"""Heat maps for many images: read, explain and write, one batch after the other."""
from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cxr.cam.base import BaseCAM
from cxr.cam.guided import GuidedBackprop, times
from cxr.data.images import image_notes, is_dicom, read_bytes, read_file
from cxr.errors import InputError, naming
from cxr.explain.drawing import guided_picture, heat_picture
from cxr.explain.explanation import Explanation, Provenance, Seen
from cxr.explain.exports import Exports, guided_path, output_paths
from cxr.explain.secondary_capture import origin
from cxr.metrics.classification import scores_from_logits
from cxr.utils.distributed import gather, share, world
from cxr.utils.parallel import default_workers, grouped, ordered_map
from cxr.utils.progress import progress
from cxr.visual.image_files import save_picture


@dataclass
class Explained:
    """What became of a run, by name: probabilities (K,), picture, image file; and a sentence for each failure."""
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False

    def keep_drawn(self) -> None:
        """Forget the images that have no picture yet."""
        self.scores = {name: row for name, row in self.scores.items() if name in self.pictures}
        self.sources = {name: path for name, path in self.sources.items() if name in self.pictures}


@dataclass(frozen=True)
class _Input:
    """An image as read: what is known of it, the network's input (3, H, W), and where its picture goes."""
    seen: Seen
    x: np.ndarray
    picture: Path


class Explainer:
    """Draws a CAM picture of every image: the part that the network saw, then one tile for each chosen class.

        Explainer(method=cam, provenance=provenance).run(find_images(["images/"]), "output/cams")

    `run` goes through the three stages for many images; `read`, `explain` and `write` can be called alone.

    Args:
        method: a CAM method on the model.
        provenance: what the model needs to know and results say: classes, preprocessing, thresholds, scale.
        classes: "all", "top" (the highest of each image), or indices.
        guided: if given, a second picture `NAME.guided.png` shows its gradients times each map.
        exports: what else is written; nothing by default.
        batch_size: images at once.
        workers: threads that read and write; by default one a core.
    """

    def __init__(self, *, method: BaseCAM, provenance: Provenance, classes: str | list[int] = "all",
                 guided: GuidedBackprop | None = None, exports: Exports | None = None, batch_size: int = 8,
                 workers: int | None = None):
        self.method, self.provenance, self.classes, self.guided = method, provenance, classes, guided
        self.exports, self.batch_size = exports or Exports(), batch_size
        self.workers = default_workers() if workers is None else workers

    def read(self, path: Path, name: Path) -> tuple[Seen, np.ndarray]:
        """Decode an image and cut out what the network sees.

        Args:
            path: of the image.
            name: what results call it.

        Returns:
            What is seen, and the network's input (3, H, W) float32.

        Raises:
            InputError: the image cannot be used; the sentence names `path`.
        """
        with naming(path):
            data, preprocess = read_file(path), self.provenance.preprocess
            image, notes = read_bytes(data, str(path)), image_notes(data, str(path))
            if notes:
                warnings.warn(" ".join(notes), stacklevel=2)
            view = preprocess.view(image)
            source = (origin(data if is_dicom(data) else None, self.exports.keep_identity) if self.exports.dicom
                      else None)
            seen = Seen(name=name.as_posix(), sha256=hashlib.sha256(data).hexdigest() if self.exports.json else "",
                        shape=image.shape[:2], view=view, notes=notes, path=path, origin=source)
            return seen, preprocess.to_input(view)

    def explain(self, seen: Sequence[Seen], x: np.ndarray) -> list[Explanation]:
        """Scores and maps of a batch, from its inputs (B, 3, H, W)."""
        provenance = self.provenance
        targets = {"all": "all", "top": None}[self.classes] if isinstance(self.classes, str) else (
            [self.classes] * len(seen))
        maps = self.method(x, targets=targets, aug_smooth=provenance.aug_smooth, eigen_smooth=provenance.eigen_smooth)
        maps, raw = (some if some.ndim == 4 else some[:, None] for some in (maps, self.method.raw))
        scores = scores_from_logits(self.method.scores.numpy()[:, None], provenance.activation)
        chosen = chosen_classes(self.method, scores)
        products = times(self.guided(x, chosen), maps) if self.guided else [None] * len(seen)
        return [Explanation(seen=seen[k], provenance=provenance, scores=scores[k], chosen=chosen[k], maps=maps[k],
                            raw=raw[k], products=products[k]) for k in range(len(seen))]

    def write(self, explanation: Explanation, path: Path) -> None:
        """Write the picture of an image to `path`, and beside it what was asked for."""
        picture = heat_picture(explanation, keeps_sign=not self.method.relu)
        save_picture(path, picture)
        files = {"picture": path.name, **{role: file.name for role, file in self.exports.paths(path).items()}}
        if explanation.products is not None:
            save_picture(guided_path(path), guided_picture(explanation))
            files["guided"] = guided_path(path).name
        self.exports.write(explanation, picture, path, files, f"Class activation maps ({type(self.method).__name__})")

    def run(self, images: Sequence[tuple[Path, Path]], save_dir: Path) -> Explained:
        """Read, explain and write every image.

        An image that cannot be read is skipped and its sentence kept in `.failures`; the others are still done. After
        Ctrl-C the images drawn so far are returned, with `.interrupted` set. Several processes share the images, and
        each returns what all did.

        Args:
            images: `(path, name)` pairs; `name` is where the picture goes below `save_dir`, as `.png`.
            save_dir: the folder of the pictures.

        Raises:
            InputError: a picture would overwrite an image to be read.
        """
        done = Explained()
        pictures = output_paths(images, Path(save_dir))
        mine = [(*images[index], pictures[index]) for index in share(range(len(images)))]
        with progress(None, total=len(mine), desc="cam") as bar:
            def write(item: tuple[Explanation, Path]) -> None:
                self.write(*item)
                done.pictures[item[0].seen.name] = item[1]
                bar.update()                       # here, since the results of `ordered_map` come late

            try:
                for _ in ordered_map(write, self._explanations(mine, done), self.workers, 2 * self.batch_size):
                    pass
            except KeyboardInterrupt:
                done.interrupted = True
                done.keep_drawn()
        return done if world() == 1 else _merged(done, [name.as_posix() for _, name in images])

    def _explanations(self, images: Iterable[tuple[Path, Path, Path]], done: Explained,
                      ) -> Iterator[tuple[Explanation, Path]]:
        """Each explanation with where its picture goes; scores, sources and failures are noted in `done`."""
        inputs = _readable(ordered_map(self._read_or_say, images, self.workers, 2 * self.batch_size), done)
        for batch in grouped(inputs, self.batch_size):
            explanations = self.explain([item.seen for item in batch], np.stack([item.x for item in batch]))
            for item, explanation in zip(batch, explanations):
                name = item.seen.name
                done.scores[name], done.sources[name] = explanation.scores, item.seen.path
                yield explanation, item.picture

    def _read_or_say(self, image: tuple[Path, Path, Path]) -> _Input | str:
        """The image, or the sentence that says why it cannot be read."""
        path, name, picture = image
        try:
            return _Input(*self.read(path, name), picture)
        except InputError as error:
            return str(error)


def choose_classes(text: str, class_names: Sequence[str]) -> str | list[int]:
    """`all`, `top`, or names separated by commas, to what `Explainer` takes.

    Raises:
        InputError: a name is not among the classes.
    """
    if text in ("all", "top"):
        return text
    known = {name.lower(): index for index, name in enumerate(class_names)}
    chosen = [known.get(name.strip().lower()) for name in text.split(",")]
    if None in chosen:
        wrong = text.split(",")[chosen.index(None)].strip()
        raise InputError(f"there is no class '{wrong}': choose from {', '.join(class_names)}, all or top.")
    return chosen


def chosen_classes(method: BaseCAM, scores: np.ndarray) -> np.ndarray:
    """(B, n) classes of the last call; a method that asked for none (EigenCAM) is shown under the highest."""
    return scores.argmax(axis=1)[:, None] if method.classes is None else method.classes


def _merged(done: Explained, order: Sequence[str]) -> Explained:
    """What all processes did, in the order of the images."""
    parts = gather({"scores": {name: row.tolist() for name, row in done.scores.items()},
                    "pictures": {name: str(path) for name, path in done.pictures.items()},
                    "sources": {name: str(path) for name, path in done.sources.items()},
                    "failures": done.failures, "interrupted": done.interrupted})

    def in_order(field: str, kind) -> dict:
        whole = {name: value for part in parts for name, value in part[field].items()}
        return {name: kind(whole[name]) for name in order if name in whole}

    return Explained(scores=in_order("scores", np.float32), pictures=in_order("pictures", Path),
                     sources=in_order("sources", Path),
                     failures=[sentence for part in parts for sentence in part["failures"]],
                     interrupted=any(part["interrupted"] for part in parts))


def _readable(items: Iterable[_Input | str], done: Explained) -> Iterator[_Input]:
    """The images that could be read; the sentences of the others are noted."""
    for item in items:
        if isinstance(item, str):
            done.failures.append(item)
        else:
            yield item
