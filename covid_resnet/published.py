"""What the COVID notebook printed for its test split, to stand beside ours."""
from __future__ import annotations

from covid_resnet.labels import CLASS_NAMES
from cxr.metrics.published import PublishedFigures

TEST_IMAGES = 2_119

_PRECISION, _RECALL, _F1 = (.981, .935, .978, .957), (1.0, .958, .951, 1.0), (.990, .947, .964, .978)

PUBLISHED_FIGURES = (PublishedFigures(
    "COVID notebook",
    {"accuracy": .965, "loss": .182,
     **{f"{figure}_{name}": value for figure, row in (("precision", _PRECISION), ("recall", _RECALL), ("F1", _F1))
        for name, value in zip(CLASS_NAMES, row)}},
    TEST_IMAGES, "ResNet50 after 50 epochs on its own random test split by image"),)
