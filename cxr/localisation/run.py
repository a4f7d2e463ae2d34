"""Where a model looks, over a whole data set: what `eval --boxes` and `eval --shortcut` do."""
from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxr.data.boxes import ExpertBox
from cxr.errors import InputError
from cxr.localisation.benchmark import gather, locate
from cxr.localisation.maps import Mapper, choose_methods
from cxr.localisation.report import Localisation, localisation, to_keep
from cxr.localisation.shortcut import ShortcutReport, look, shortcut_report
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


def localise(restored: Restored, boxes: Sequence[ExpertBox], data_dir: str | os.PathLike, patients: Patients,
             held_out: Collection[str], aliases: Mapping[str, str], box_size: int | None,
             options: Options) -> Localisation:
    """Hold the maps of a model against a list of expert boxes.

    patients: gives the patient of each of some image names. held_out: names of the test list. aliases, box_size: see
    `cxr.localisation.benchmark`. Raises `InputError` where no box is of use.
    """
    methods = choose_methods(options.methods)
    gathered = gather(boxes, restored.class_names, data_dir, patients, aliases)
    if not gathered.findings:
        raise InputError(f"of the {len(boxes)} boxes {sum(gathered.missing.values())} are of images that are "
                         f"not in {data_dir}, and {sum(gathered.unknown.values())} of classes that the model does not "
                         "have: check --boxes and --data_dir.")
    main = options.main if options.main in methods else methods[0]
    mapper = Mapper(restored.model, methods, options.engine, options.top_k)
    located = locate(mapper, restored.preprocess, gathered, data_dir, box_size, options.batch_size, options.workers,
                     options.tolerance, to_keep(gathered.findings, methods, main))
    return localisation(located, gathered, restored.class_names, mapper.titles, main, held_out)


def shortcuts(restored: Restored, dataset, patients: Patients, options: Options) -> ShortcutReport:
    """Measure where the maps of each image's own classes lie, over a data set (`cxr.data.dataset`).

    `all` methods stand for the recipe's own here: a whole test list with every one of them would take hours.
    """
    methods = choose_methods(options.methods, options.main)
    labels = np.asarray(dataset.labels)
    classes = [np.flatnonzero(row > 0).tolist() for row in labels] if labels.ndim == 2 else labels[:, None].tolist()
    mapper = Mapper(restored.model, methods, options.engine, options.top_k)
    seen = look(mapper, restored.preprocess, dataset.paths, classes, len(restored.class_names), options.batch_size,
                options.workers)
    return shortcut_report(seen, restored.class_names, patients(dataset.names), mapper.titles)
