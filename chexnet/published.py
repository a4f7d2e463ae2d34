"""Ten-crop AUROCs that were published for CheXNet, to stand beside ours."""
from __future__ import annotations

from chexnet.labels import CLASS_NAMES
from cxr.metrics.published import PublishedFigures

TEST_IMAGES = 22_433                             # of the published test list

PUBLISHED_FIGURES = tuple(
    PublishedFigures(source, {"AUROC_avg": average, **dict(zip((f"AUROC_{name}" for name in CLASS_NAMES), areas))},
                     TEST_IMAGES, setting)
    for source, average, areas, setting in (
        ("Paddle-CheXNet", 0.847,
         (.8292, .9143, .8876, .7118, .8647, .7921, .7684, .8771, .8161, .8987, .9302, .8374, .7962, .9311),
         "AUROC of ten crops on its published test list"),
        ("CheXNet paper", 0.841,
         (.8094, .9248, .8638, .7345, .8676, .7802, .7680, .8887, .7901, .8878, .9371, .8047, .8062, .9164),
         "AUROC that Rajpurkar et al. 2017 give for an unpublished split of their own; reproductions put it beside "
         "theirs on the published test list")))
