"""Where a model looks, over a whole data set: what `eval --boxes` and `eval --shortcut` do."""
from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxr.data.boxes import ExpertBox
from cxr.errors import InputError
from cxr.localisation.benchmark import collect_findings, measure_findings
from cxr.localisation.maps import MapMaker, choose_methods
from cxr.localisation.report import LocalisationReport, findings_to_draw, localisation_report
from cxr.localisation.shortcut import ShortcutReport, measure_shortcuts, shortcut_report
from cxr.models.restore import Restored

Patients = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True)
class Options:
    """methods: `all` or names; main: the recipe's method, of pictures and tables by class. top_k: channels that
    ScoreCAM tries. tolerance: pixels by which a peak may miss, in the second column."""
    methods: str
    main: str
    top_k: int | None = 32
    tolerance: float = 15
    engine: str = "auto"
    batch_size: int = 8
    workers: int | None = None


def run_localisation(restored: Restored, boxes: Sequence[ExpertBox], data_dir: str | os.PathLike, patients: Patients,
                     held_out: Collection[str], aliases: Mapping[str, str], box_size: int | None,
                     options: Options) -> LocalisationReport:
    """Hold the maps of a model against a list of expert boxes.

    patients: gives the patient of each of some image names. held_out: names of the test list. aliases, box_size: see
    `cxr.localisation.benchmark`. Raises `InputError` where no box is of use.
    """
    methods = choose_methods(options.methods)
    listed = collect_findings(boxes, restored.class_names, data_dir, patients, aliases)
    if not listed.findings:
        raise InputError(f"of the {len(boxes)} boxes {sum(listed.missing.values())} are of images that are "
                         f"not in {data_dir}, and {sum(listed.unknown.values())} of classes that the model does not "
                         "have: check --boxes and --data_dir.")
    main = options.main if options.main in methods else methods[0]
    map_maker = MapMaker(restored.model, methods, options.engine, options.top_k)
    measured = measure_findings(map_maker, restored.preprocess, listed, data_dir, box_size, options.batch_size,
                                options.workers, options.tolerance, findings_to_draw(listed.findings, methods, main))
    return localisation_report(measured, listed, restored.class_names, map_maker.titles, main, held_out)


def run_shortcuts(restored: Restored, dataset, patients: Patients, options: Options) -> ShortcutReport:
    """Measure where the maps of each image's own classes lie, over a data set (`cxr.data.dataset`).

    `all` methods stand for the recipe's own here: a whole test list with every one of them would take hours.
    """
    methods = choose_methods(options.methods, options.main)
    labels = np.asarray(dataset.labels)
    classes = [np.flatnonzero(row > 0).tolist() for row in labels] if labels.ndim == 2 else labels[:, None].tolist()
    map_maker = MapMaker(restored.model, methods, options.engine, options.top_k)
    seen = measure_shortcuts(map_maker, restored.preprocess, dataset.paths, classes, len(restored.class_names),
                             options.batch_size, options.workers)
    return shortcut_report(seen, restored.class_names, patients(dataset.names), map_maker.titles)
