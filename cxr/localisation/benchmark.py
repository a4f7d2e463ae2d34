"""Maps against a whole list of expert boxes: which method points where, beside what needs no model at all.

A finding is one class in one image, with all boxes that the list gives it. Intervals are bootstrapped over patients.
Thresholds are tuned without leak: for each finding on the findings of all other patients, for each kind of map anew.
"""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cxr.data.boxes import Box, ExpertBox, Geometry, clip, scale_box
from cxr.data.lists import missing_files
from cxr.data.transforms import Preprocess
from cxr.localisation.maps import Mapper, padded, views
from cxr.localisation.measures import FIXED, OTSU, THRESHOLDS, Judged, gaussian, judge, judge_uniform
from cxr.metrics.bootstrap import Resamples
from cxr.utils.progress import progress

BASELINES = ("average box", "centre prior", "uniform map")
RULES = ("fixed", "otsu", "tuned")
LEAST = (0.1, 0.25, 0.5)                          # the overlaps of Wang et al. 2017
ALL, HELD_OUT = "all", "test list"                # groups beside the classes


@dataclass
class Finding:
    """One class in one image. boxes: (x, y, w, h) in pixels of the view, clipped to it; none where the view holds none
    of them. number: of the boxes in the list."""
    image: str
    label: int
    patient: str
    number: int
    boxes: list[Box] = field(default_factory=list)


@dataclass
class Gathered:
    """The list as it can be used. unknown: boxes by class name that the model does not have; missing: boxes whose
    image is not there, by image name."""
    findings: list[Finding]
    rows: dict[tuple[str, int], list[Box]]
    unknown: Counter
    missing: Counter


def gather(rows: Sequence[ExpertBox], class_names: Sequence[str], data_dir: str | os.PathLike,
           patients: Callable[[Sequence[str]], Sequence[str]], aliases: Mapping[str, str]) -> Gathered:
    """Sort out a list of boxes: what has a class and an image, in the order of classes and then of the list.

    patients: gives the patient of each image of a list of names. aliases: names that the list has for classes which
    the model calls otherwise (`Infiltrate`: `Infiltration`).
    """
    index = {name: k for k, name in enumerate(class_names)}
    names = list(dict.fromkeys(row.image for row in rows))
    absent = {names[k] for k in missing_files(data_dir, names)}
    found, unknown, missing = {}, Counter(), Counter()
    for row in rows:
        label = index.get(aliases.get(row.label, row.label))
        if label is None:
            unknown[row.label] += 1
        elif row.image in absent:
            missing[row.image] += 1
        else:
            found.setdefault((row.image, label), []).append(row.box)
    owners = patients([image for image, _ in found]) if found else []
    findings = [Finding(image, label, patient, len(boxes)) for ((image, label), boxes), patient
                in zip(found.items(), owners)]
    return Gathered(sorted(findings, key=lambda finding: finding.label), found, unknown, missing)


@dataclass
class Located:
    """What `locate` finds out. judged: kind of map -> one `Judged` for each finding. methods: its kinds that are CAM
    methods. kept: index of a finding -> (view, {method: map}), for pictures. clipped, outside: boxes cut by the crop,
    and wholly beside it. alone: findings of a class that no other patient has. flat: maps without a peak."""
    findings: list[Finding]
    methods: list[str]
    tolerance: float
    judged: dict[str, list[Judged]] = field(default_factory=dict)
    kept: dict[int, tuple[np.ndarray, dict[str, np.ndarray]]] = field(default_factory=dict)
    clipped: int = 0
    outside: int = 0
    alone: int = 0
    flat: Counter = field(default_factory=Counter)


def locate(mapper: Mapper, preprocess: Preprocess, gathered: Gathered, data_dir: str | os.PathLike,
           box_size: int | None, batch_size: int = 8, workers: int | None = None, tolerance: float = 15,
           keep: Mapping[int, Collection[str]] | None = None) -> Located:
    """Draw the maps of every finding, all of an image at once, and hold them against its boxes.

    box_size: side of the square image that the boxes refer to; the file may be a scaled version of it. None: pixels
    of the file itself. keep: index of a finding -> methods whose maps are kept for pictures.
    """
    findings, keep = gathered.findings, keep or {}
    located = Located(findings, list(mapper.methods), tolerance)
    judged = {name: [None] * len(findings) for name in mapper.methods}
    of_image: dict[str, list[int]] = {}
    for index, finding in enumerate(findings):
        of_image.setdefault(finding.image, []).append(index)
    images = list(of_image)
    with progress(None, total=len(images), desc="localise") as bar:
        for batch in views([Path(data_dir, image) for image in images], preprocess, batch_size, workers):
            own = [of_image[images[number]] for number, _, _ in batch]
            classes = [[findings[index].label for index in row] for row in own]
            maps = mapper(np.stack([preprocess.to_input(view) for _, _, view in batch]), padded(classes))
            for place, ((_, shape, view), row) in enumerate(zip(batch, own)):
                geometry = Geometry.of(preprocess, shape)
                for column, index in enumerate(row):
                    _carry(findings[index], gathered, geometry, box_size, located)
                    for name, cams in maps.items():
                        cam = cams[place, column]
                        judged[name][index] = judge(cam, findings[index].boxes, tolerance)
                        located.flat[name] += int(cam.max() <= cam.min())
                    if index in keep:
                        located.kept[index] = view, {name: maps[name][place, column].copy() for name in keep[index]}
            bar.update(len(batch))
    located.kept = dict(sorted(located.kept.items()))
    located.judged = {**judged, **_baselines(findings, view.shape[:2], located)}
    return located


def _carry(finding: Finding, gathered: Gathered, geometry: Geometry, box_size: int | None, located: Located) -> None:
    """Put the finding's boxes into the view; count those that the crop cuts or leaves out."""
    for box in gathered.rows[finding.image, finding.label]:
        in_image = scale_box(box, (box_size, box_size), geometry.image) if box_size else box
        whole = geometry.to_view(in_image)
        seen = clip(whole, geometry.view)
        if seen is None:
            located.outside += 1
        else:
            located.clipped += seen[2] * seen[3] < (1 - 1e-9) * whole[2] * whole[3]
            finding.boxes.append(seen)


def _baselines(findings: Sequence[Finding], shape: tuple[int, int], located: Located) -> dict[str, list[Judged]]:
    """Maps that know other patients' boxes only. Each falls to a half at the edges of a box: the average one of the
    class (of all classes, where no other patient has this one), or one of the average size in the middle."""
    averages = _Averages(findings)
    judged = {name: [] for name in BASELINES}
    for finding in findings:
        own, everything = averages(finding, finding.label), averages(finding, None)
        located.alone += own is None
        width, height = everything[2:] if everything else (shape[1] / 2, shape[0] / 2)
        centre = ((shape[1] - width) / 2, (shape[0] - height) / 2, width, height)
        for name, box in (("average box", own or everything or centre), ("centre prior", centre)):
            judged[name].append(judge(gaussian(box, shape), finding.boxes, located.tolerance))
        judged["uniform map"].append(judge_uniform(finding.boxes, shape, located.tolerance))
    return judged


class _Averages:
    """Mean (x, y, w, h) of a class's boxes, or of all, without those of one patient."""

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
    """For each of N findings the column of scores (N, L) that is best in the mean over all other patients' findings;
    -1 where there is no other patient. The first of equals counts."""
    patient = np.unique(np.asarray(patients), return_inverse=True)[1]
    own = np.zeros((patient.max() + 1, scores.shape[1]))
    np.add.at(own, patient, scores)
    # Rounded: what is equal on paper must not be decided by the order of the sum.
    best = np.round(own.sum(axis=0) - own, 9).argmax(axis=1)
    return (best if len(own) > 1 else np.full(1, -1))[patient]


def figures(judged: Sequence[Judged], patients: Sequence) -> dict[str, np.ndarray]:
    """Name of a figure -> its value for each finding (N,), nan where it is undefined.

    `hit`, `near`, `mass`; and for each rule of RULES `region_iou.RULE`, `region_iobb.RULE`, `box_iou.RULE`,
    `box_iobb.RULE`, `parts.RULE`, `box_iou.RULE>=0.25` (1.0 or 0.0), ..., `threshold.RULE` of regions and boxes.
    """
    result = {name: np.array([getattr(own, name) for own in judged]) for name in ("hit", "near", "mass")}
    levels = {name: np.stack([getattr(own, name) for own in judged])
              for name in ("region_iou", "region_iobb", "box_iou", "box_iobb", "parts")}
    everyone = np.arange(len(judged))
    for rule in RULES:
        for kind in ("region", "box"):
            column = {"fixed": np.full(len(judged), FIXED), "otsu": np.full(len(judged), OTSU),
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


def groups(located: Located, class_names: Sequence[str], held_out: Collection[str]) -> dict[str, np.ndarray]:
    """Name -> indices of its findings: all, those on images of the test list, and every class that has some."""
    chosen = {ALL: np.arange(len(located.findings)),
              HELD_OUT: np.array([k for k, own in enumerate(located.findings) if own.image in held_out], int)}
    for label, name in enumerate(class_names):
        chosen[name] = np.array([k for k, own in enumerate(located.findings) if own.label == label], int)
    return {name: members for name, members in chosen.items() if len(members)}


def summarise(table: Mapping[str, Mapping[str, np.ndarray]], members: np.ndarray,
              patients: Sequence) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Kind of map -> figure -> (mean, low, high) over some findings, with 95 % intervals from whole patients.

    A figure that is undefined for a finding (nan) is left out there. The interval is nan with a single patient.
    """
    keys = [(kind, name) for kind, own in table.items() for name in own]
    values = np.stack([table[kind][name][members] for kind, name in keys], axis=1).astype(float)
    means, intervals = Resamples(np.asarray(patients)[members]).means(values)
    result: dict[str, dict] = {kind: {} for kind in table}
    for (kind, name), mean, limits in zip(keys, means, intervals):
        result[kind][name] = (float(mean), limits.low, limits.high)
    return result
