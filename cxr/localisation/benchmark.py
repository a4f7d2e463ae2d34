"""Maps against a whole list of expert boxes: which method points where, beside maps that need no model.

A finding is a class that is present in an image, with all boxes that the list gives it. Intervals are bootstrapped over
patients. Thresholds are tuned without leaks: for each finding on the findings of all other patients, and separately for
each kind of map.
"""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cxr.data.boxes import Box, ExpertBox, Geometry, clip, scale_box
from cxr.data.lists import missing_files
from cxr.data.transforms import Preprocess
from cxr.localisation.maps import MapMaker, pad_classes, read_views
from cxr.localisation.measures import FIXED, OTSU, THRESHOLDS, MapMeasures, gaussian, measure_map, measure_uniform_map
from cxr.metrics.bootstrap import Resamples
from cxr.utils.progress import progress

BASELINES = ("average box", "centre prior", "uniform map")
RULES = ("fixed", "otsu", "tuned")
LEAST = (0.1, 0.25, 0.5)                          # the overlaps of Wang et al. 2017
ALL, HELD_OUT = "all", "test list"                # groups beside the classes


@dataclass(frozen=True)
class Finding:
    """A class that is present in an image, with its boxes.

    Attributes:
        image: name of the image in the list.
        label: index of the class.
        patient: whose image it is.
        number: of the boxes in the list.
        boxes: (x, y, w, h). `collect_findings` gives them in pixels of the list, `measure_findings` in pixels of the
            view and clipped to it; none where the view holds none of them.
    """
    image: str
    label: int
    patient: str
    number: int
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class FindingList:
    """The list as it can be used, for any number of models.

    Attributes:
        findings: in the order of classes and then of the list.
        unknown: number of boxes by class name that the model does not have.
        missing: number of boxes whose image is not there, by image name.
    """
    findings: tuple[Finding, ...]
    unknown: Counter
    missing: Counter


def collect_findings(rows: Sequence[ExpertBox], class_names: Sequence[str], data_dir: str | os.PathLike,
                     patients: Callable[[Sequence[str]], Sequence[str]],
                     aliases: Mapping[str, str]) -> FindingList:
    """Sort out a list of boxes: what has a class and an image, in the order of classes and then of the list.

    Args:
        rows: the list.
        class_names: of the model.
        data_dir: folder that the images' names are relative to.
        patients: gives the patient of each image of a list of names.
        aliases: names that the list has for classes which the model calls otherwise (`Infiltrate`: `Infiltration`).

    Returns:
        The findings, and what had to be left out.
    """
    labels = {name: k for k, name in enumerate(class_names)}
    names = list(dict.fromkeys(row.image for row in rows))
    absent = {names[k] for k in missing_files(data_dir, names)}
    found, unknown, missing = {}, Counter(), Counter()
    for row in rows:
        label = labels.get(aliases.get(row.label, row.label))
        if label is None:
            unknown[row.label] += 1
        elif row.image in absent:
            missing[row.image] += 1
        else:
            found.setdefault((row.image, label), []).append(row.box)
    owners = patients([image for image, _ in found]) if found else []
    findings = [Finding(image, label, patient, len(boxes), tuple(boxes))
                for ((image, label), boxes), patient in zip(found.items(), owners)]
    return FindingList(tuple(sorted(findings, key=lambda finding: finding.label)), unknown, missing)


@dataclass(frozen=True)
class FindingMeasures:
    """What `measure_findings` finds out.

    Attributes:
        findings: those of the list, with their boxes in pixels of the view.
        methods: the kinds of map that are CAM methods.
        tolerance: pixels by which a peak may miss.
        measures: kind of map -> one `MapMeasures` for each finding.
        kept: index of a finding -> (view, {method: map}), for pictures.
        clipped: number of boxes that the crop cuts.
        outside: number of boxes wholly beside it.
        alone: number of findings of a class that no other patient has.
        flat: number of maps without a peak, by method.
    """
    findings: tuple[Finding, ...]
    methods: tuple[str, ...]
    tolerance: float
    measures: Mapping[str, Sequence[MapMeasures]]
    kept: Mapping[int, tuple[np.ndarray, dict[str, np.ndarray]]]
    clipped: int
    outside: int
    alone: int
    flat: Counter


def measure_findings(map_maker: MapMaker, preprocess: Preprocess, listed: FindingList, data_dir: str | os.PathLike,
                     box_size: int | None, batch_size: int = 8, workers: int | None = None, tolerance: float = 15,
                     keep: Mapping[int, Collection[str]] | None = None) -> FindingMeasures:
    """Compute the maps of every finding, all of an image at once, and hold them against its boxes.

    Args:
        map_maker: gives the maps.
        preprocess: of the model.
        listed: the findings; it stays as it is, so that several models can be held against one list.
        data_dir: folder of the images.
        box_size: side of the square image that the boxes refer to; the file may be a scaled version of it. None:
            pixels of the file itself.
        batch_size: images at once.
        workers: threads that read images; None: one a core.
        tolerance: pixels of the view by which a peak may miss a box.
        keep: index of a finding -> methods whose maps are kept for pictures.

    Returns:
        What was measured, for the maps and for the baselines.
    """
    seen, keep = list(listed.findings), keep or {}
    measures = {name: [None] * len(seen) for name in map_maker.methods}
    kept, flat, clipped, outside = {}, Counter(), 0, 0
    of_image: dict[str, list[int]] = {}
    for index, finding in enumerate(seen):
        of_image.setdefault(finding.image, []).append(index)
    images = list(of_image)
    with progress(None, total=len(images), desc="localisation") as bar:
        for batch in read_views([Path(data_dir, image) for image in images], preprocess, batch_size, workers):
            members = [of_image[images[number]] for number, _, _ in batch]
            classes = [[seen[index].label for index in row] for row in members]
            maps = map_maker(np.stack([preprocess.to_input(view) for _, _, view in batch]), pad_classes(classes))
            for place, ((_, shape, view), row) in enumerate(zip(batch, members)):
                geometry = Geometry.of(preprocess, shape)
                for column, index in enumerate(row):
                    seen[index], cut, lost = _into_view(seen[index], geometry, box_size)
                    clipped, outside = clipped + cut, outside + lost
                    for name, cams in maps.items():
                        cam = cams[place, column]
                        measures[name][index] = measure_map(cam, seen[index].boxes, tolerance)
                        flat[name] += int(cam.max() <= cam.min())
                    if index in keep:
                        kept[index] = view, {name: maps[name][place, column].copy() for name in keep[index]}
            bar.update(len(batch))
    baselines, alone = _baselines(seen, view.shape[:2], tolerance)
    return FindingMeasures(
        findings=tuple(seen), methods=tuple(map_maker.methods), tolerance=tolerance,
        measures={**measures, **baselines}, kept=dict(sorted(kept.items())), clipped=clipped, outside=outside,
        alone=alone, flat=flat)


def _into_view(finding: Finding, geometry: Geometry, box_size: int | None) -> tuple[Finding, int, int]:
    """The finding with its boxes in pixels of the view, and how many the crop cuts and how many it leaves out."""
    seen, clipped, outside = [], 0, 0
    for box in finding.boxes:
        in_image = scale_box(box, (box_size, box_size), geometry.image) if box_size else box
        whole = geometry.to_view(in_image)
        part = clip(whole, geometry.view)
        if part is None:
            outside += 1
        else:
            clipped += part[2] * part[3] < (1 - 1e-9) * whole[2] * whole[3]
            seen.append(part)
    return replace(finding, boxes=tuple(seen)), clipped, outside


def _baselines(findings: Sequence[Finding], shape: tuple[int, int],
               tolerance: float) -> tuple[dict[str, list[MapMeasures]], int]:
    """Measure maps that only know other patients' boxes.

    Each falls to a half at the edges of a box: the average box of the class (of all classes, where no other patient
    has the class), or a box of average size in the middle.

    Returns:
        Baseline -> measures of each finding; and the number of findings of a class that no other patient has.
    """
    averages = _AverageBoxes(findings)
    measures, alone = {name: [] for name in BASELINES}, 0
    for finding in findings:
        of_class, of_all = averages(finding, finding.label), averages(finding, None)
        alone += of_class is None
        width, height = of_all[2:] if of_all else (shape[1] / 2, shape[0] / 2)
        centre = ((shape[1] - width) / 2, (shape[0] - height) / 2, width, height)
        for name, box in (("average box", of_class or of_all or centre), ("centre prior", centre)):
            measures[name].append(measure_map(gaussian(box, shape), finding.boxes, tolerance))
        measures["uniform map"].append(measure_uniform_map(finding.boxes, shape, tolerance))
    return measures, alone


class _AverageBoxes:
    """Mean (x, y, w, h) of a class's boxes, or of all, without those of the finding's patient."""

    def __init__(self, findings: Sequence[Finding]):
        self._sums: dict[tuple, np.ndarray] = {}
        for finding in findings:
            for box in finding.boxes:
                for key in ((finding.label, None), (None, None), (finding.label, finding.patient),
                            (None, finding.patient)):
                    self._sums[key] = self._sums.get(key, 0) + np.array([*box, 1.0])

    def __call__(self, finding: Finding, label: int | None) -> Box | None:
        others = self._sums.get((label, None), np.zeros(5)) - self._sums.get((label, finding.patient), 0)
        return tuple((others[:4] / others[4]).tolist()) if others[4] > 0.5 else None


def tuned(scores: np.ndarray, patients: Sequence) -> np.ndarray:
    """Choose a threshold for each finding by what is best for all other patients.

    Args:
        scores: (N, L), of N findings at L thresholds.
        patients: of each finding.

    Returns:
        (N,) columns of the best mean over all other patients' findings, the first of equals; -1 where there is no
        other patient.
    """
    patient = np.unique(np.asarray(patients), return_inverse=True)[1]
    sums = np.zeros((patient.max() + 1, scores.shape[1]))
    np.add.at(sums, patient, scores)
    # Rounded: what is equal on paper must not be decided by the order of the sum.
    best = np.round(sums.sum(axis=0) - sums, 9).argmax(axis=1)
    return (best if len(sums) > 1 else np.full(1, -1))[patient]


def figures(measures: Sequence[MapMeasures], patients: Sequence) -> dict[str, np.ndarray]:
    """Turn the measures of N findings into columns of a table.

    Args:
        measures: of each finding.
        patients: of each finding.

    Returns:
        Name of a figure -> (N,) values, nan where it is undefined: `hit`, `near`, `mass`; for each rule of RULES
        `region_iou.RULE`, `region_iobb.RULE`, `box_iou.RULE`, `box_iobb.RULE`, `parts.RULE`, and 1.0 or 0.0 as
        `box_iou.RULE>=0.25`, ...; and `region_threshold.tuned` and `box_threshold.tuned`.
    """
    result = {name: np.array([getattr(row, name) for row in measures]) for name in ("hit", "near", "mass")}
    levels = {name: np.stack([getattr(row, name) for row in measures])
              for name in ("region_iou", "region_iobb", "box_iou", "box_iobb", "parts")}
    everyone = np.arange(len(measures))
    for rule in RULES:
        for kind in ("region", "box"):
            column = {"fixed": np.full(len(measures), FIXED), "otsu": np.full(len(measures), OTSU),
                      "tuned": tuned(levels[f"{kind}_iou"][:, :OTSU], patients)}[rule]
            for name in (f"{kind}_iou", f"{kind}_iobb", *(["parts"] if kind == "box" else [])):
                result[f"{name}.{rule}"] = np.where(column < 0, np.nan, levels[name][everyone, column])
            if rule == "tuned":
                result[f"{kind}_threshold.tuned"] = np.where(column < 0, np.nan, THRESHOLDS[column])
        for name in ("box_iou", "box_iobb"):
            values = result[f"{name}.{rule}"]
            for least in LEAST:
                result[f"{name}.{rule}>={least}"] = np.where(np.isnan(values), np.nan, values >= least)
    return result


def groups(measured: FindingMeasures, class_names: Sequence[str], held_out: Collection[str]) -> dict[str, np.ndarray]:
    """Group the findings: all, those on images of the test list, and every class that has some.

    Args:
        measured: has the findings.
        class_names: of the model.
        held_out: names of the images of the test list.

    Returns:
        Group -> indices of its findings; groups without any are left out.
    """
    findings = measured.findings
    chosen = {ALL: np.arange(len(findings)),
              HELD_OUT: np.array([k for k, finding in enumerate(findings) if finding.image in held_out], int)}
    for label, name in enumerate(class_names):
        chosen[name] = np.array([k for k, finding in enumerate(findings) if finding.label == label], int)
    return {name: members for name, members in chosen.items() if len(members)}


def summarise(table: Mapping[str, Mapping[str, np.ndarray]], members: np.ndarray,
              patients: Sequence) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Average each figure over some findings.

    Args:
        table: kind of map -> figure -> (N,) values; nan where undefined, which is left out of the mean.
        members: indices of the findings.
        patients: of all N findings.

    Returns:
        Kind of map -> figure -> (mean, low, high), a 95 % interval from resampling whole patients; nan with a single
        patient.
    """
    keys = [(kind, name) for kind, columns in table.items() for name in columns]
    values = np.stack([table[kind][name][members] for kind, name in keys], axis=1).astype(float)
    means, intervals = Resamples(np.asarray(patients)[members]).means(values)
    result: dict[str, dict] = {kind: {} for kind in table}
    for (kind, name), mean, limits in zip(keys, means, intervals):
        result[kind][name] = (float(mean), limits.low, limits.high)
    return result
