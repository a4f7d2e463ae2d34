"""Figures that others published, and whether they may stand beside ours."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFigures:
    """One column of somebody's table.

    `source`: its title. `values`: named as in `cxr.metrics.classification.Report.values` (`AUROC_Mass`, `AUROC_avg`,
    `F1_COVID`). `images`: how many images they were computed on. `setting`: which images and how, as a sentence shows
    it.
    """
    source: str
    values: Mapping[str, float]
    images: int
    setting: str


def comparable(published: Sequence[PublishedFigures], images: int,
               class_names: Sequence[str]) -> tuple[list[PublishedFigures], list[str]]:
    """The columns that belong to a set of so many images with these classes, and sentences about all columns.

    Only the number of images and the names of classes can be compared: the sentences say so.
    """
    fitting, told = [], []
    others, elsewhere = [], []
    for column in published:
        known = {key.partition("_")[2] for key in column.values} - {"avg", ""}
        if known != set(class_names):
            others.append(column.source)
        elif images != column.images:
            elsewhere.append(f"{column.source} ({column.images:,} images)")
        else:
            fitting.append(column)
            told.append(f"{column.source}: {column.setting}. This set has as many images as the published one "
                        f"({images:,}); whether they are the same was not checked.")
    if others:
        told.append(f"Other classes, so not comparable with {' and '.join(others)}, whose figures are left out.")
    if elsewhere:
        told.append(f"Not the published set, so not comparable with {' and '.join(elsewhere)}, whose figures are left "
                    f"out: this set has {images:,}.")
    return fitting, told
