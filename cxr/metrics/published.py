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
    """Find the published columns that belong to a set. Only its size and class names can be compared.

    Args:
        published: the columns there are.
        images: how many images the set has.
        class_names: of the set.

    Returns:
        The columns that may stand beside figures of the set, and sentences about all columns.
    """
    fitting, sentences = [], []
    of_other_classes, of_other_sets = [], []
    for column in published:
        known = {key.partition("_")[2] for key in column.values} - {"avg", ""}
        if known != set(class_names):
            of_other_classes.append(column.source)
        elif images != column.images:
            of_other_sets.append(f"{column.source} ({column.images:,} images)")
        else:
            fitting.append(column)
            sentences.append(f"{column.source}: {column.setting}. This set has as many images as the published one "
                        f"({images:,}); whether they are the same was not checked.")
    if of_other_classes:
        sentences.append(f"Other classes, so not comparable with {' and '.join(of_other_classes)}, whose figures are "
                         "left out.")
    if of_other_sets:
        sentences.append(f"Not the published set, so not comparable with {' and '.join(of_other_sets)}, whose figures "
                         f"are left out: this set has {images:,}.")
    return fitting, sentences
