"""What other programs read: boxes and places in pixels of the original image, decisions, and null for unknown."""
import io
import json
from pathlib import Path

import numpy as np
import pytest

from cxr.data.boxes import Geometry
from cxr.data.transforms import Preprocess
from cxr.explain.explanation import Explanation, Provenance, Seen
from cxr.explain.manifest import manifest, raw_maps
from cxr.metrics.thresholds import Operating, called
from cxr.models.catalogue import Checkpoint
from cxr.utils.files import write_json

NAMES = ("A", "B", "C")
OPERATING = Operating({"A": 0.5, "B": 0.7, "C": float("nan")}, {"A": 0.1, "B": 0.2, "C": 0.0}, "youden", "val.txt", 1.5)


# 1000 x 800 -> shorter side 200, so 250 x 200; crop 100 at (75, 50): a pixel of the view is 4 of the image.
CROPPED = Preprocess(resize=200, crop=100)
SEEN = Seen("sub/x.dcm", "ab" * 32, (1000, 800), np.zeros((100, 100, 3), np.uint8), notes=["a note"])


def explained(scores, maps, preprocess=CROPPED, seen=SEEN, activation="sigmoid", operating=OPERATING, raw=None):
    """An explanation with maps of some classes, by their index."""
    provenance = Provenance(Checkpoint(Path("run/best.pdparams"), "r", NAMES, "cd" * 32), preprocess, activation, "cam",
                            "last", operating, scale="shared")
    return Explanation(seen, provenance, np.array(scores), np.array(list(maps)), np.stack(list(maps.values())), raw)


def test_manifest_by_hand(tmp_path):
    cam = np.zeros((100, 100), np.float32)
    cam[10:30, 20:60] = 1
    cam[80:100, 90:100] = 0.6
    cam[50, 50] = 0.4                                                         # below half of the peak
    told = manifest(explained([0.5, 0.6, 0.9], {0: cam, 1: 0 * cam}), {"picture": "x.png"})
    write_json(tmp_path / "x.json", told)
    told = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert told["schema"] == "cxr-cam/1" and "not for diagnosis" in told["use"]
    assert told["image"] == {"name": "sub/x.dcm", "sha256": "ab" * 32, "width": 800, "height": 1000,
                             "notes": ["a note"]}
    assert told["view"] == {"x": 200, "y": 300, "width": 400, "height": 400}
    assert [finding["class"] for finding in told["findings"]] == ["C", "B", "A"]
    c, b, a = told["findings"]
    assert a == {"class": "A", "score": 0.5, "threshold": 0.5, "prevalence": 0.1, "called": True, "boxes": [
        {"x": 280, "y": 340, "width": 160, "height": 80, "score": 1},
        {"x": 560, "y": 620, "width": 40, "height": 80, "score": pytest.approx(0.6)}]}
    assert b["called"] is False and b["boxes"] == []                          # a flat map has none
    assert c["threshold"] is None and c["called"] is None and c["boxes"] is None
    assert told["operating"] == {"rule": "youden", "fitted_on": "val.txt", "temperature": 1.5}
    assert told["model"] == {"recipe": "r", "checkpoint": "best.pdparams", "checkpoint_sha256": "cd" * 32,
                             "activation": "sigmoid", "classes": list(NAMES),
                             "preprocess": json.loads(json.dumps(CROPPED.to_dict()))}
    assert told["method"] == {"name": "cam", "layer": "last", "aug_smooth": False, "eigen_smooth": False,
                              "scale": "shared", "precision": "float32"}
    assert told["files"] == {"picture": "x.png"}
    assert set(told["versions"]) == {"paddle-cxr", "paddle", "numpy", "python"}


def test_boxes_stay_inside_the_image():
    """The longer side is truncated when it is resized, so the way back can end beyond the last pixel."""
    whole = Preprocess(resize=50, crop=None)
    shape = Geometry.of(whole, (333, 100)).view
    seen = Seen("x", "", (333, 100), np.zeros((*shape, 3), np.uint8))
    told = manifest(explained([0.2, 0.5, 0.3], {1: np.eye(*shape, dtype=np.float32) + 1}, whole, seen, "softmax", None),
                    {})
    box = told["findings"][0]["boxes"][0]
    assert box["y"] + box["height"] <= 333 and box["x"] + box["width"] <= 100
    assert told["operating"] is None and told["findings"][0]["threshold"] is None


def test_called():
    assert called(np.array([0.5, 0.69, 0.9]), NAMES, "sigmoid", OPERATING) == [True, False, None]
    assert called(np.array([0.5, 0.6, 0.9]), NAMES, "sigmoid", None) == [None] * 3
    assert called(np.array([0.2, 0.5, 0.3]), NAMES, "softmax", None) == [False, True, False]


def test_bytes_are_maps_as_well():
    cam = np.zeros((100, 100), np.uint8)
    cam[10:30, 20:60] = 255
    box, = manifest(explained([0.5, 0.6, 0.9], {2: cam}), {})["findings"][0]["boxes"]
    assert box == {"x": 280, "y": 340, "width": 160, "height": 80, "score": 1}


def test_raw_maps():
    raw = np.arange(2 * 7 * 7, dtype=np.float64).reshape(2, 7, 7) - 50
    maps = dict.fromkeys((2, 0), np.zeros((100, 100), np.float32))
    file = np.load(io.BytesIO(raw_maps(explained([0.1, 0.2, 0.3], maps, raw=raw))))
    assert file["maps"].dtype == np.float32 and (file["maps"] == raw).all()
    assert file["classes"].tolist() == ["C", "A"] and np.allclose(file["scores"], [0.3, 0.1])
    assert file["place"].tolist() == [200, 300, 400, 400] and file["image_size"].tolist() == [1000, 800]
