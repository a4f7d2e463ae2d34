"""Does the model look at the chest: how much of its maps lies outside the thorax, in the corners, and on the border.

Sets that take each class from another hospital can be told apart by markers, borders and collimation, without any
disease (DeGrave et al. 2021). A map that lies there is a warning; a map inside the thorax is no proof of the contrary.
The thorax is a rough classical estimate (`cxr.localisation.thorax`). Regions, of what the network sees:

- outside lungs: all but the two lung fields; heart, diaphragm and consolidated lung are outside too;
- outside thorax: all but the convex hull of both fields;
- corners: four squares of 5 % of the area each (22 % of a square picture's side);
- border: a frame of 5 % of the shorter side.
"""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cxr.data.transforms import Preprocess
from cxr.errors import InputError
from cxr.evaluation.report import Note, Picture, Section, Table
from cxr.localisation.maps import MapMaker, pad_classes, read_views
from cxr.localisation.thorax import estimate
from cxr.metrics.bootstrap import Resamples
from cxr.utils.files import write_csv
from cxr.utils.progress import progress
from cxr.visual.heatmaps import caption, drawable_names, heading, montage, overlay

REGIONS = ("outside lungs", "outside thorax", "corners", "border")
CORNER, BORDER = 0.05, 0.05                       # area of each square; width of the frame over the shorter side
_CYAN = (0, 255, 255)


def corners(shape: Sequence[int]) -> np.ndarray:
    """Mask (H, W) bool of four squares of CORNER of the picture's area each; shape: (H, W)."""
    height, width = shape
    side = min(round((CORNER * height * width) ** 0.5), min(height, width) // 2)
    mask = np.zeros((height, width), bool)
    for rows in (slice(side), slice(height - side, height)):
        for columns in (slice(side), slice(width - side, width)):
            mask[rows, columns] = True
    return mask


def border(shape: Sequence[int]) -> np.ndarray:
    """Mask (H, W) bool of a frame of BORDER of the shorter side, at least a pixel; shape: (H, W)."""
    width = max(1, round(BORDER * min(shape)))
    mask = np.ones(tuple(shape), bool)
    mask[width:-width, width:-width] = False
    return mask


def regions(view: np.ndarray) -> tuple[np.ndarray, bool]:
    """Find the REGIONS of a picture.

    Args:
        view: (h, w, 3) uint8.

    Returns:
        Their masks (4, h, w) bool, and whether the lung fields were found in it.
    """
    thorax, shape = estimate(view), view.shape[:2]
    return np.stack([~thorax.lungs, ~thorax.thorax, corners(shape), border(shape)]), thorax.found


def shares(cam: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Measure how much of a map lies in each of some masks.

    Args:
        cam: a map (H, W), nowhere negative.
        masks: (R, H, W) bool.

    Returns:
        (R,) shares of the map's sum, nan for a map of zeros.
    """
    total = cam.sum(dtype=np.float64)
    inside = masks.reshape(len(masks), -1) @ cam.reshape(-1).astype(np.float64)
    return inside / total if total > 0 else np.full(len(masks), np.nan)


@dataclass(frozen=True)
class ShortcutMeasures:
    """What `measure_shortcuts` finds out, with a row for each pair of an image and a class that it has.

    Attributes:
        labels: (N,) indices of the classes.
        images: (N,) indices of the images.
        found: (N,) whether the lung fields were found in the image.
        uniform: (N, R) share of the area in each region.
        mass: method -> (N, R) share of the map in each region.
        means: method -> (K, H, W) mean map of each class; nan where no image has it.
        views: (K, H, W, 3) mean picture of the images of each class; nan where no image has it.
    """
    labels: np.ndarray
    images: np.ndarray
    found: np.ndarray
    uniform: np.ndarray
    mass: dict[str, np.ndarray]
    means: dict[str, np.ndarray]
    views: np.ndarray


def measure_shortcuts(map_maker: MapMaker, preprocess: Preprocess, paths: Sequence[Path],
                      classes: Sequence[Sequence[int]], n_classes: int, batch_size: int = 8,
                      workers: int | None = None) -> ShortcutMeasures:
    """Compute the maps of the classes that each image has, and measure where they lie.

    Args:
        map_maker: gives the maps.
        preprocess: of the model.
        paths: of the images.
        classes: for each image the indices of the classes that it has; images with none are left out.
        n_classes: of the model.
        batch_size: images at once.
        workers: threads that read images; None: one a core.

    Raises:
        InputError: no image has any of the classes.
    """
    chosen = [index for index, labels in enumerate(classes) if len(labels)]
    if not chosen:
        raise InputError("none of the images in the list has any of the classes: --shortcut has no maps to look at.")
    shape = preprocess.input_shape[1:]
    sums = {name: np.zeros((n_classes, *shape)) for name in map_maker.methods}
    pictures, counts = np.zeros((n_classes, *shape, 3)), np.zeros(n_classes)
    rows, mass = [], {name: [] for name in map_maker.methods}
    with progress(None, total=len(chosen), desc="shortcuts") as bar:
        for batch in read_views([paths[index] for index in chosen], preprocess, batch_size, workers):
            present = [classes[chosen[number]] for number, _, _ in batch]
            maps = map_maker(np.stack([preprocess.to_input(view) for _, _, view in batch]), pad_classes(present))
            for place, ((number, _, view), labels) in enumerate(zip(batch, present)):
                masks, found = regions(view)
                for column, label in enumerate(labels):
                    rows.append((label, chosen[number], found, masks.mean(axis=(1, 2))))
                    pictures[label] += view
                    counts[label] += 1
                    for name, cams in maps.items():
                        mass[name].append(shares(cams[place, column], masks))
                        sums[name][label] += cams[place, column]
            bar.update(len(batch))
    with np.errstate(invalid="ignore"):
        means = {name: total / counts[:, None, None] for name, total in sums.items()}
        pictures /= counts[:, None, None, None]
    labels, images, found, uniform = zip(*rows)
    return ShortcutMeasures(
        labels=np.array(labels), images=np.array(images), found=np.array(found), uniform=np.stack(uniform),
        mass={name: np.stack(shared) for name, shared in mass.items()}, means=means, views=pictures)


@dataclass(frozen=True)
class ShortcutReport:
    """The result of a run.

    Attributes:
        section: of a report.
        rows: group, method, region, number of images, mean share, its interval, share of a uniform map.
    """
    section: Section
    rows: Sequence[Sequence]

    def save(self, folder: str | os.PathLike) -> None:
        """Write `shortcut.csv`."""
        write_csv(Path(folder, "shortcut.csv"),
                  ["class", "map", "region", "images", "share", "low", "high", "uniform"], self.rows)


def shortcut_report(measured: ShortcutMeasures, class_names: Sequence[str], patients: Sequence[str],
                    titles: dict[str, str]) -> ShortcutReport:
    """Make tables, notes and pictures.

    Args:
        measured: what was measured.
        class_names: of the model.
        patients: of each image of the data set.
        titles: method -> how the tables call it.
    """
    groups = {name: np.flatnonzero(measured.labels == k) for k, name in enumerate(class_names)}
    groups = {name: rows for name, rows in {**groups, "all": np.arange(len(measured.labels))}.items() if len(rows)}
    owner = np.asarray(patients)[measured.images]
    blocks: list = [
        "Share of the sum of each class's map, on the images that have the class, by where it lies; in square brackets "
        "what a map without preference would have there. The thorax is a rough classical estimate, no segmentation; "
        "corners are four squares of 5 % of the area, the border a frame of 5 % of the side. Intervals: 95 %, "
        "bootstrap over patients."]
    fixed = float(1 - measured.found.mean())
    blocks.append(Note(f"In {fixed:.0%} of {len(measured.found)} cases the lung fields were not found, and fixed "
                       "ellipses stand in for them."))
    absent = [name for name in class_names if name not in groups]
    if absent:
        blocks.append(Note(f"No image has {', '.join(absent)}: nothing is said of them."))
    rows, values = [], {"fallback": fixed, "maps": {}}
    for name, title in titles.items():
        table, values["maps"][title] = [], {}
        for group, members in groups.items():
            cells = _summarise(measured.mass[name][members], measured.uniform[members], owner[members])
            table.append([group, str(len(members)), *(
                f"{mean:.2f}{'' if low != low else f' ({low:.2f} to {high:.2f})'} [{uniform:.2f}]"
                for mean, low, high, uniform in cells)])
            rows += [[group, title, region, len(members), *("" if value != value else f"{value:.6g}" for value in cell)]
                     for region, cell in zip(REGIONS, cells)]
            values["maps"][title][group] = {"images": len(members), **{
                region: dict(zip(("share", "low", "high", "uniform"), cell)) for region, cell in zip(REGIONS, cells)}}
        blocks += [f"Maps of {title}:",
                   Table(["Class", "Images", *(region.capitalize() for region in REGIONS)], table, ("all",))]
    blocks += [_picture(measured, class_names, name, title) for name, title in titles.items()]
    return ShortcutReport(Section("shortcut", "Does the model look at the chest", blocks, values), rows)


def _summarise(mass: np.ndarray, uniform: np.ndarray, patients: np.ndarray) -> list[tuple]:
    """For each region (mean, low, high, uniform), over the maps that are not empty."""
    means, intervals = Resamples(patients).means(mass)
    return [(float(mean), limits.low, limits.high, float(expected))
            for mean, limits, expected in zip(means, intervals, uniform.mean(axis=0))]


def _picture(measured: ShortcutMeasures, class_names: Sequence[str], name: str, title: str) -> Picture:
    """The mean map of each class on the mean picture of its images, with corners and border."""
    tiles = []
    for text, cam, view in zip(drawable_names(class_names), measured.means[name], measured.views):
        if np.isnan(cam).any():
            continue
        tile = overlay(view.astype(np.uint8), cam / max(cam.max(), 1e-12))
        for mask in (corners(cam.shape), border(cam.shape)):
            outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            cv2.drawContours(tile, outlines, -1, _CYAN, 1)
        tiles.append(caption(tile, text))
    text = f"Mean map of each class ({title}) on the mean of its images; cyan: corners and border"
    return Picture(f"shortcut_{name.replace('+', 'p')}", heading(montage(tiles), text), text + ".")
