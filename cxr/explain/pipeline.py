"""Heat maps for many images: read, predict, explain, draw and write, one batch after the other."""
from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

import numpy as np

from cxr.cam.base import BaseCAM
from cxr.cam.guided import GuidedBackprop, times, to_picture
from cxr.cam.maths import rescale, upsample
from cxr.data.boxes import Geometry
from cxr.data.images import image_notes, is_dicom, read_bytes, read_file
from cxr.data.transforms import Preprocess
from cxr.errors import InputError, naming
from cxr.explain.manifest import Subject, manifest, raw_maps
from cxr.explain.secondary_capture import origin, secondary_capture
from cxr.metrics.classification import scores_from_logits
from cxr.metrics.thresholds import Operating, called, remark
from cxr.utils.distributed import gather, share, world
from cxr.utils.files import replacing, write_json
from cxr.utils.parallel import default_workers, grouped, ordered_map
from cxr.utils.progress import progress
from cxr.visual.heatmaps import Evidence, cam_montage, caption, drawable_names, evidence_montage, montage
from cxr.visual.image_files import save_picture


@dataclass
class Explained:
    """What became of a run, by name: probabilities (K,), picture, image file; and a sentence for each failure."""
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False


@dataclass(frozen=True)
class Exports:
    """What is written beside every picture for other systems.

    json: `NAME.json`, the manifest of `cxr.explain.manifest`; `about` is its `model` and `method`.
    npz: `NAME.npz`, the raw maps. dicom: `NAME.cam.dcm`, the picture as DICOM (`cxr.explain.secondary_capture`), of
    nobody unless `keep_identity`, which holds for images that are DICOM themselves.
    """
    json: bool = False
    npz: bool = False
    dicom: bool = False
    keep_identity: bool = False
    about: Mapping = field(default_factory=dict)

    def paths(self, picture: Path) -> dict[str, Path]:
        """Role -> file that goes beside a picture."""
        wanted = {"manifest": (self.json, ".json"), "maps": (self.npz, ".npz"), "dicom": (self.dicom, ".cam.dcm")}
        return {role: picture.with_suffix(suffix) for role, (asked, suffix) in wanted.items() if asked}


@dataclass(frozen=True)
class _Image:
    """An image as read: its place in the list, what the network sees of it, and what the exports say about it."""
    index: int
    view: np.ndarray
    inputs: np.ndarray
    subject: Subject
    origin: object = None


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
    """A path below `folder` for each `(path, name)` of `cxr.data.images.find_images`: `NAME.png` in place of its
    suffix.

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
        for written in (path, guided_path(path), *Exports(dicom=True).paths(path).values()):
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
            scale: str = "class", operating: Operating | None = None, exports: Exports | None = None,
            **options) -> Explained:
    """Draw a CAM picture of every image: the part that the network saw, then one tile for each chosen class.

    Args:
        method: a CAM method on the model.
        activation: of the model, "sigmoid" or "softmax".
        preprocess: what the model was trained with.
        images: `(path, name)` pairs; `name` is where the picture goes below `save_dir`, as `.png`.
        classes: "all", "top" (the highest of each image), or indices.
        guided: if given, a second picture `NAME.guided.png` shows its gradients times each map.
        scale: "class" stretches every map to the whole colour range, as published. "shared" puts all classes of an
            image on one scale, the highest score first, and leaves those plain that `operating` does not call.
        operating: thresholds and prevalence for those captions and the manifest.
        exports: what else is written.
        options: passed on to the method's call (`aug_smooth`, `eigen_smooth`).

    An image that cannot be read is skipped and its sentence kept in `.failures`; the others are still done. After
    Ctrl-C the images drawn so far are returned, with `.interrupted` set. Several processes share the images, and each
    returns what all did.
    """
    workers, exports = default_workers() if workers is None else workers, exports or Exports()
    done = Explained()
    paths, names = output_paths(images, Path(save_dir)), drawable_names(class_names)

    def read(index: int) -> _Image | str:
        path, name = images[index]
        try:
            with naming(path):
                data = read_file(path)
                image, notes = read_bytes(data, str(path)), image_notes(data, str(path))
                if notes:
                    warnings.warn(" ".join(notes), stacklevel=2)
                view = preprocess.view(image)
                digest = hashlib.sha256(data).hexdigest() if exports.json else ""
                subject = Subject(name.as_posix(), digest, notes, Geometry.of(preprocess, image.shape[:2]))
                source = origin(data if is_dicom(data) else None, exports.keep_identity) if exports.dicom else None
                return _Image(index, view, preprocess.to_input(view), subject, source)
        except InputError as error:
            return str(error)

    def draw(item) -> None:
        image, maps, raw, shown, scores, products = item
        path, columns = paths[image.index], min(5, 1 + len(shown))
        captions = [f"{names[k]}: {scores[k] * 100:.2f}%" for k in shown]
        if scale == "shared":
            evidence = np.maximum(raw, 0) if method.relu else raw
            picture = _honest(image.view, evidence, shown, names, class_names, scores, activation, operating, columns)
        else:
            picture = cam_montage(image.view, maps, captions, columns)
        save_picture(path, picture)
        files = {"picture": path.name, **{role: file.name for role, file in exports.paths(path).items()}}
        if products is not None:
            tiles = [caption(to_picture(product), text) for product, text in zip(products, captions)]
            save_picture(guided_path(path), montage([caption(image.view, "Original"), *tiles], columns))
            files["guided"] = guided_path(path).name
        for role, file in exports.paths(path).items():
            if role == "manifest":
                write_json(file, manifest(image.subject, exports.about, class_names, activation, scores,
                                          dict(zip(shown.tolist(), maps)), operating, files))
                continue
            content = (raw_maps(raw, shown, class_names, scores, image.subject.geometry) if role == "maps" else
                       secondary_capture(picture, f"Class activation maps ({type(method).__name__})", image.origin))
            with replacing(file) as stream:
                stream.write(content)
        done.pictures[image.subject.name] = path
        bar.update()

    def explained() -> Iterator[tuple]:
        for batch in grouped(_readable(ordered_map(read, indices, workers, 2 * batch_size), done), batch_size):
            x = np.stack([image.inputs for image in batch])
            targets = {"all": "all", "top": None}[classes] if isinstance(classes, str) else [classes] * len(batch)
            maps = method(x, targets=targets, **options)
            maps, raws = (one if one.ndim == 4 else one[:, None] for one in (maps, method.raw))
            scores = scores_from_logits(method.scores.numpy()[:, None], activation)
            chosen = chosen_classes(method, scores)
            products = times(guided(x, chosen), maps) if guided else [None] * len(batch)
            for image, *result in zip(batch, maps, raws, chosen, scores, products):
                name = image.subject.name
                done.scores[name], done.sources[name] = result[3], images[image.index][0]
                yield image, *result

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


def _honest(view: np.ndarray, evidence: np.ndarray, shown: np.ndarray, names: Sequence[str],
            class_names: Sequence[str], scores: np.ndarray, activation: str, operating: Operating | None,
            columns: int) -> np.ndarray:
    """The picture of `scale="shared"`: unscaled maps (n, h, w) of one image on one scale, whatever else is in the
    batch."""
    maps = rescale(upsample(evidence[None], view.shape[:2])[0], shared=True)
    decided = called(scores, class_names, activation, operating)
    tiles = sorted(zip(shown.tolist(), maps), key=lambda tile: -scores[tile[0]])
    return evidence_montage(view, [
        Evidence(cam, f"{names[k]} {scores[k] * 100:.1f} %", remark(class_names[k], scores[k], operating), decided[k])
        for k, cam in tiles], columns)


def chosen_classes(method: BaseCAM, scores: np.ndarray) -> np.ndarray:
    """(B, n) classes of the last call; a method that asked for none (EigenCAM) is shown under the highest."""
    return scores.argmax(axis=1)[:, None] if method.classes is None else method.classes


def _readable(items, done: Explained) -> Iterator:
    """The images that could be read; the sentences of the others are noted."""
    for item in items:
        if isinstance(item, str):
            done.failures.append(item)
        else:
            yield item
