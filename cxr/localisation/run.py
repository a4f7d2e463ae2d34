"""Where a model looks, over a whole data set: what `eval --boxes` and `eval --shortcut` do."""
from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from cxr.data.boxes import ExpertBox
from cxr.data.dataset import XrayDataset
from cxr.errors import InputError
from cxr.localisation.benchmark import collect_findings, measure_findings
from cxr.localisation.maps import MapMaker, MapOptions
from cxr.localisation.report import LocalisationReport, findings_to_draw, localisation_report
from cxr.localisation.shortcut import ShortcutReport, measure_shortcuts, shortcut_report
from cxr.models.restore import Restored

Patients = Callable[[Sequence[str]], Sequence[str]]      # the patient of each of some image names


def run_localisation(restored: Restored, boxes: Sequence[ExpertBox], *, data_dir: str | os.PathLike, patients: Patients,
                     held_out: Collection[str], aliases: Mapping[str, str], box_size: int | None,
                     methods: Sequence[str], main: str, tolerance: float, options: MapOptions) -> LocalisationReport:
    """Hold the maps of a model against a list of expert boxes.

    Args:
        restored: the model, its classes and its preprocessing.
        boxes: the list.
        data_dir: folder that the images' names are relative to.
        patients: gives the patient of each image of a list of names.
        held_out: names of the images of the test list, which the model was not trained on.
        aliases: names that the list has for classes which the model calls otherwise.
        box_size: side of the square image that the boxes refer to; None: pixels of the files.
        methods: names of `cxr.cam.METHODS`.
        main: the method of the pictures and of the tables by class; where it is not among `methods`, the first of
            those takes its place.
        tolerance: pixels of the network's input by which a peak may miss a box in the second column.
        options: how the maps are computed.

    Raises:
        InputError: no box is of use.
    """
    listed = collect_findings(boxes, restored.class_names, data_dir, patients, aliases)
    if not listed.findings:
        raise InputError(f"of the {len(boxes)} boxes {sum(listed.missing.values())} are of images that are "
                         f"not in {data_dir}, and {sum(listed.unknown.values())} of classes that the model does not "
                         "have: check --boxes and --data_dir.")
    main = main if main in methods else methods[0]
    map_maker = MapMaker(restored.model, methods, engine=options.engine, top_k=options.top_k)
    measured = measure_findings(
        map_maker, restored.preprocess, listed, data_dir, box_size=box_size, batch_size=options.batch_size,
        workers=options.workers, tolerance=tolerance, keep=findings_to_draw(listed.findings, methods, main))
    return localisation_report(measured, listed, restored.class_names, titles=map_maker.titles, main=main,
                               held_out=held_out)


def run_shortcuts(restored: Restored, dataset: XrayDataset, *, patients: Patients, methods: Sequence[str],
                  options: MapOptions) -> ShortcutReport:
    """Measure where the maps of the classes that each image has lie, over a data set.

    Args:
        restored: the model, its classes and its preprocessing.
        dataset: the images and their labels.
        patients: gives the patient of each image of a list of names.
        methods: names of `cxr.cam.METHODS`.
        options: how the maps are computed.

    Raises:
        InputError: no image has any of the classes.
    """
    labels = np.asarray(dataset.labels)
    classes = [np.flatnonzero(row > 0).tolist() for row in labels] if labels.ndim == 2 else labels[:, None].tolist()
    map_maker = MapMaker(restored.model, methods, engine=options.engine, top_k=options.top_k)
    measured = measure_shortcuts(map_maker, restored.preprocess, dataset.paths, classes, len(restored.class_names),
                                 batch_size=options.batch_size, workers=options.workers)
    return shortcut_report(measured, restored.class_names, patients(dataset.names), map_maker.titles)
