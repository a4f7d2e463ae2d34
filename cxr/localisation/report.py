"""Tables, files and pictures of what `cxr.localisation.benchmark` found out."""
from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cxr.cam.regions import draw_boxes, peak
from cxr.data.boxes import Box
from cxr.evaluation.report import Note, Picture, Section, Table
from cxr.localisation.benchmark import (
    ALL,
    BASELINES,
    HELD_OUT,
    LEAST,
    Finding,
    FindingList,
    FindingMeasures,
    figures,
    groups,
    summarise,
)
from cxr.utils.files import write_csv
from cxr.visual.heatmaps import caption, drawable_names, heading, montage, overlay, with_box
from cxr.visual.image_files import fit

TILES, COLUMNS = 24, 6
_SMALL = 168                                     # side of a tile where every method has its own
_MAGENTA = (255, 0, 255)                          # the heat map's colours have none

Summary = Mapping[str, Mapping[str, Mapping[str, tuple]]]    # group -> kind of map -> figure -> (mean, low, high)


@dataclass(frozen=True)
class LocalisationReport:
    """The result of a run.

    Attributes:
        section: of a report.
        summary: group of findings -> kind of map -> figure -> (mean, low, high).
        header: names of the columns of `rows`.
        rows: for each kind of map and finding what they are, and then the figures.
    """
    section: Section
    summary: Summary
    header: Sequence[str]
    rows: Sequence[Sequence]

    def save(self, folder: str | os.PathLike) -> None:
        """Write `localisation.csv`, means and intervals, and `localisation_findings.csv`, every finding."""
        folder = Path(folder)
        write_csv(folder / "localisation.csv", ["group", "map", "figure", "mean", "low", "high"],
                  ([group, kind, name, *(_number(value) for value in values)]
                   for group, kinds in self.summary.items() for kind, means in kinds.items()
                   for name, values in means.items()))
        write_csv(folder / "localisation_findings.csv", self.header, self.rows)


def findings_to_draw(findings: Sequence[Finding], methods: Sequence[str], main: str) -> dict[int, list[str]]:
    """Choose the findings of the pictures: up to 24 in turn from the classes, the first of each class (up to 8) with
    every method.

    Args:
        findings: to choose from.
        methods: all of them.
        main: the method of the other findings.

    Returns:
        Index of a finding -> the methods whose maps its picture needs.
    """
    of_class: dict[int, list[int]] = {}
    for index, finding in enumerate(findings):
        of_class.setdefault(finding.label, []).append(index)
    turns = sorted((turn, label, index) for label, members in of_class.items() for turn, index in enumerate(members))
    keep = {index: [main] for _, _, index in turns[:TILES]}
    keep.update({index: list(methods) for turn, _, index in turns[:8] if turn == 0})
    return dict(sorted(keep.items()))


def localisation_report(measured: FindingMeasures, listed: FindingList, class_names: Sequence[str],
                        titles: Mapping[str, str], main: str, held_out: Collection[str]) -> LocalisationReport:
    """Make tables, notes and pictures.

    Args:
        measured: what was measured.
        listed: the list, for what had to be left out.
        class_names: of the model.
        titles: method -> how the tables call it.
        main: the method of the tables by class and of the pictures.
        held_out: names of the images of the test list, which the model was not trained on.
    """
    patients = [finding.patient for finding in measured.findings]
    table = {titles.get(kind, kind): figures(measures, patients) for kind, measures in measured.measures.items()}
    members = groups(measured, class_names, held_out)
    summary = {name: summarise(table, chosen, patients) for name, chosen in members.items()}
    main_title = titles.get(main, main)
    blocks = [_protocol(measured.tolerance), *_notes(measured, listed, members, titles),
              *_tables(summary, members, measured, main_title), *_pictures(measured, class_names, table, titles, main)]
    counts = {name: {"findings": len(chosen), "boxes": sum(measured.findings[k].number for k in chosen),
                     "patients": len({patients[k] for k in chosen})} for name, chosen in members.items()}
    values = {"tolerance": measured.tolerance, "clipped": measured.clipped, "outside": measured.outside,
              "unknown_labels": dict(listed.unknown), "missing_images": dict(listed.missing),
              "flat_maps": {titles[name]: count for name, count in measured.flat.items()},
              "groups": {name: {**counts[name], "maps": kinds} for name, kinds in summary.items()}}
    names = list(table[main_title])
    rows = [[finding.image, class_names[finding.label], finding.patient, int(finding.image in held_out), kind,
             *(_number(column[index]) for column in (columns[name] for name in names))]
            for kind, columns in table.items() for index, finding in enumerate(measured.findings)]
    section = Section("localisation", "Does the map point at the finding", blocks, values)
    return LocalisationReport(section, summary, ["image", "class", "patient", "in_test_list", "map", *names], rows)


def _number(value: float) -> str:
    return "" if value != value else f"{value:.6g}"


def _protocol(tolerance: float) -> str:
    return (f"Peak: the map's highest pixel lies in an expert box (the pointing game), or within {tolerance:g} "
            "pixels of the network's input. Mass: share of the map's sum inside the boxes. IoU of the region: pixels "
            "of at least the threshold times the peak, against the boxes; IoBB: over the region's own area. A box is "
            "drawn around the connected part of the region that holds the peak. Tuned thresholds are the best in the "
            "mean of all other patients' findings (leave one patient out, nothing of the patient's own). Average box "
            "and centre prior know the other patients' boxes and not the image. Intervals: 95 %, bootstrap over "
            "patients.")


def _notes(measured: FindingMeasures, listed: FindingList, members: Mapping[str, np.ndarray],
           titles: Mapping[str, str]) -> Iterator[Note]:
    findings = measured.findings
    images = {finding.image for finding in findings}
    seen = len({findings[k].image for k in members.get(HELD_OUT, ())})
    yield Note(f"{sum(finding.number for finding in findings)} boxes of {len(findings)} findings on {len(images)} "
               f"images of {len({finding.patient for finding in findings})} patients. {seen} of the images are in the "
               f"test list" + ("; the model may have been trained on the others." if seen < len(images) else "."))
    if listed.unknown:
        yield Note(f"{sum(listed.unknown.values())} boxes are left out, their class is none of the model's: "
                   + ", ".join(f"{name} ({count})" for name, count in listed.unknown.most_common()) + ".")
    if listed.missing:
        yield Note(f"{sum(listed.missing.values())} boxes are left out, their {len(listed.missing)} images are not "
                   f"in the folder (the first: {next(iter(listed.missing))}).")
    if measured.clipped or measured.outside:
        yield Note(f"Boxes cut by the crop, of which the part inside counts: {measured.clipped}; wholly outside it, "
                   f"which count as missed: {measured.outside}.")
    if measured.alone:
        yield Note(f"Findings of a class that no other patient has, whose average box is that of all classes: "
                   f"{measured.alone}.")
    if any(measured.flat.values()):
        yield Note("Flat maps, which miss and have no mass: "
                   + ", ".join(f"{titles[name]} {count}" for name, count in measured.flat.items() if count) + ".")
    shortened = [title for name, title in titles.items() if title != name]
    if shortened:
        yield Note(f"{', '.join(shortened)}: a forward for each channel, so only those that vary most were tried; "
                   "--top_k changes it.")


def _tables(summary: Summary, members: Mapping[str, np.ndarray], measured: FindingMeasures,
            main: str) -> Iterator[Table | str]:
    everything = summary[ALL]

    def over_all(columns: Mapping[str, str], plain: Mapping[str, str] | None = None) -> Table:
        return Table(["Map", *columns, *(plain or {})],
                     [[kind, *(_interval(means[name]) for name in columns.values()),
                       *(_plain(means[name]) for name in (plain or {}).values())]
                      for kind, means in everything.items()])

    yield over_all({"Peak in box": "hit", f"Within {measured.tolerance:g} px": "near", "Mass in box": "mass"})
    yield "The region above a threshold against the boxes, mean:"
    yield over_all({"IoU, 0.5 of peak": "region_iou.fixed", "IoU, Otsu": "region_iou.otsu",
                    "IoU, tuned": "region_iou.tuned"}, {"IoBB, tuned": "region_iobb.tuned"})
    yield "The box drawn at the tuned threshold, mean IoU and share of findings:"
    yield over_all({"IoU": "box_iou.tuned"}, {
        **{f"IoU >= {least}": f"box_iou.tuned>={least}" for least in LEAST},
        **{f"IoBB >= {least}": f"box_iobb.tuned>={least}" for least in LEAST}, "Parts": "parts.tuned"})
    yield f"By class, {main}; the last columns are the peaks of what knows no image:"
    order = [name for name in summary if name not in (ALL, HELD_OUT)]
    order += [name for name in (HELD_OUT, ALL) if name in summary]
    rows = []
    for name in order:
        findings, kinds = [measured.findings[k] for k in members[name]], summary[name]
        rows.append([name, str(sum(finding.number for finding in findings)),
                     str(len({finding.patient for finding in findings})), _interval(kinds[main]["hit"]),
                     _interval(kinds[main]["mass"]), _interval(kinds[main]["box_iou.tuned"]),
                     *(_plain(kinds[baseline]["hit"]) for baseline in BASELINES)])
    yield Table(["Class", "Boxes", "Patients", "Peak in box", "Mass in box", "IoU of drawn box",
                 *(baseline.capitalize() for baseline in BASELINES)], rows, (ALL,))
    methods = [kind for kind in everything if kind not in BASELINES]
    if len(methods) > 1:
        yield "Peak in box, by class and method:"
        yield Table(["Class", *methods], [[name, *(_plain(summary[name][kind]["hit"]) for kind in methods)]
                                          for name in order], (ALL,))


def _interval(values: tuple[float, float, float]) -> str:
    mean, low, high = values
    return _plain(values) if low != low else f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _plain(values: tuple[float, float, float]) -> str:
    return "-" if values[0] != values[0] else f"{values[0]:.2f}"


def _pictures(measured: FindingMeasures, class_names: Sequence[str], table: Mapping[str, Mapping[str, np.ndarray]],
              titles: Mapping[str, str], main: str) -> Iterator[Picture]:
    names = drawable_names(class_names)

    def tile(index: int, method: str, text: str, side: int | None = None) -> np.ndarray:
        view, maps = measured.kept[index]
        columns, cam = table[titles.get(method, method)], maps[method]
        threshold = columns["box_threshold.tuned"][index]
        drawn = draw_boxes(cam, threshold if threshold == threshold else 0.5)
        result = draw_finding(view, cam, measured.findings[index].boxes, drawn[0][0] if drawn else None)
        result = fit(result, side) if side else result
        inside = "in" if columns["hit"][index] else "out"
        iou = columns["box_iou.tuned"][index]
        return caption(result, f"{text}{'' if iou != iou else f' IoU {iou:.2f},'} peak {inside}")

    legend = "white: expert   magenta: box drawn from the map at the tuned threshold   cross: its peak"
    if measured.kept:
        tiles = [tile(index, main, names[measured.findings[index].label]) for index in measured.kept]
        yield Picture("localisation", heading(montage(tiles, COLUMNS), f"{titles.get(main, main)}   {legend}"),
                      f"{len(tiles)} findings by class, {titles.get(main, main)}. {legend}")
    compared = [index for index, (_, maps) in measured.kept.items() if len(maps) > 1]
    if compared:
        tiles = [tile(index, method, f"{names[measured.findings[index].label]} {method}", _SMALL)
                 for index in compared for method in measured.methods]
        yield Picture("localisation_methods", heading(montage(tiles, len(measured.methods)), legend),
                      f"The first finding of each class, a method in each column. {legend}")


def draw_finding(view: np.ndarray, cam: np.ndarray, expert: Sequence[Box], drawn: Box | None) -> np.ndarray:
    """Draw a finding as a heat map.

    Args:
        view: what the network sees, (h, w, 3) uint8.
        cam: the map (h, w).
        expert: the boxes of the finding, in pixels of the view.
        drawn: the box drawn from the map, or None for a flat map, which has no peak either.

    Returns:
        The picture, (h, w, 3) uint8.
    """
    picture = overlay(view, cam)
    if drawn:
        x, y = peak(cam)
        cv2.drawMarker(picture, (int(x), int(y)), _MAGENTA, cv2.MARKER_CROSS, 11, 1)
        picture = with_box(picture, drawn, _MAGENTA)
    for box in expert:
        picture = with_box(picture, box)
    return picture
