"""Copies of one radiograph are found after what happens to copies; others are left alone."""
import csv

import cv2
import numpy as np
import pytest

from cxr.data import phantom
from cxr.data.images import read_image
from cxr.evaluation import duplicates
from cxr.evaluation.duplicates import Fingerprints, Pair


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    """Twelve different phantoms, (256, 256, 3)."""
    folder = tmp_path_factory.mktemp("phantoms")
    phantom.write_folder(folder, per_class=3, size=256)
    return [read_image(path) for path in sorted(folder.rglob("*.png"))]


def pairs_of(images):
    prints = Fingerprints(len(images))
    for index, image in enumerate(images):
        prints.add(index, image)
    return prints.pairs()


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


CHANGES = {
    "the same": lambda image: image,
    "JPEG": lambda image: jpeg(image, 50),
    "half the size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5),
    "another shape": lambda image: cv2.resize(image, (299, 320)),
    "gamma 0.7": lambda image: (255 * (image / 255) ** 0.7).astype(np.uint8),
    "darker": lambda image: (image * 0.7).astype(np.uint8),
    "grey": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
    "floats": lambda image: image.astype("float32"),
    "1 % cut off": lambda image: image[2:-2, 2:-2],
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found_and_nothing_else(xrays, change):
    copies = [CHANGES[change](image) for image in xrays[:4]]
    found, more = pairs_of([*xrays, *copies])
    assert [(first, second) for first, second, _ in sorted(found)] == [(k, len(xrays) + k) for k in range(4)]
    assert not more and all(bits <= duplicates.MOST_BITS for *_, bits in found)
    if change == "the same":
        assert {bits for *_, bits in found} == {0}


@pytest.mark.parametrize("change", [lambda image: 255 - image, lambda image: image[30:-30, 30:-30]])
def test_what_is_no_copy(xrays, change):
    assert pairs_of([*xrays, change(xrays[0])])[0] == []


def test_flat_images_are_no_copies_of_each_other():
    flat = [np.full((64, 64), value, np.uint8) for value in (0, 0, 128, 255)]
    assert pairs_of(flat)[0] == []


def test_blocks_and_numbering(xrays, monkeypatch):
    """The blocks of the comparison meet: each pair once, wherever it lies."""
    images = [xrays[k % 4] for k in range(10)]
    whole = {pair[:2] for pair in pairs_of(images)[0]}
    assert whole == {(i, j) for i in range(10) for j in range(i + 1, 10) if i % 4 == j % 4}
    for block in (1, 3, 4, 10):
        monkeypatch.setattr(duplicates, "_BLOCK", block)
        found = pairs_of(images)[0]
        assert len(found) == len(whole) and {pair[:2] for pair in found} == whole


def test_correlation_refuses_what_the_hash_alone_would_take(xrays, monkeypatch):
    """A hash knows only which of two places is brighter."""
    steep = np.clip((xrays[0].astype(int) > 128) * 200 + xrays[0] // 8, 0, 255).astype(np.uint8)
    monkeypatch.setattr(duplicates, "MOST_BITS", 512)
    close = pairs_of([xrays[0], xrays[0], steep, xrays[5]])[0]
    assert Pair(0, 1, 0) in close and not any(3 in pair[:2] for pair in close)


def test_thousands_of_copies_are_cut_short(xrays, monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 5)
    found, more = pairs_of([xrays[0]] * 6)
    assert len(found) == 5 and more


def test_real_xrays_under_two_names(data_dir):
    """The collection of `covid4` took images from `nih14`: its table names them. The docstring's figures, in part."""
    with open(data_dir / "covid4" / "sources.csv", newline="") as file:
        known = {row["file"]: row["source_file"].split("/")[-1] for row in csv.DictReader(file)}
    nih = {path.name: path for path in (data_dir / "nih14" / "images").iterdir()}
    shared = [(file, name) for file, name in known.items() if name in nih][:60]
    assert len(shared) == 60
    images = [read_image(data_dir / "covid4" / file) for file, _ in shared]
    images += [read_image(nih[name]) for _, name in shared]
    found, _ = pairs_of(images)
    assert [pair[:2] for pair in sorted(found)] == [(k, 60 + k) for k in range(60)]
    assert max(pair.bits for pair in found) <= 8
