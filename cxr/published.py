"""Figures that others published, and whether they may stand beside ours."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFigures:
    """One column of somebody's table.

    `source`: its title. `values`: named as in `cxr.metrics.Report.values` (`AUROC_Mass`, `AUROC_avg`, `F1_COVID`).
    `images`: how many images they were computed on. `setting`: which images and how, as a sentence shows it.
    """
    source: str
    values: Mapping[str, float]
    images: int
    setting: str


def comparable(published: Sequence[PublishedFigures], images: int,
               class_names: Sequence[str]) -> tuple[list[PublishedFigures], list[str]]:
    """The columns that belong to a set of so many images with these classes, and a sentence about every column.

    Only numbers and names of classes can be compared: the sentence says so.
    """
    fitting, told = [], []
    for column in published:
        known = {key.partition("_")[2] for key in column.values} - {"avg", ""}
        if known != set(class_names):
            told.append(f"Not comparable with {column.source}, whose figures are left out: its classes are others.")
        elif images != column.images:
            told.append(f"Not the published set, so not comparable with {column.source}, whose figures are left out: "
                        f"{column.setting}, {column.images:,} images; this set has {images:,}.")
        else:
            fitting.append(column)
            told.append(f"{column.source}: {column.setting}. This set has the same number of images ({images:,}); "
                        "whether they are the same images was not checked.")
    return fitting, told
