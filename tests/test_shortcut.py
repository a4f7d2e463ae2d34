"""Where maps lie: shares by hand, and the report over a small set of phantoms."""
import csv
import json

import numpy as np
import pytest

from cxr.data import phantom
from cxr.data.images import read_image
from cxr.data.transforms import Preprocess
from cxr.errors import InputError
from cxr.evaluation.report import printed, save_report
from cxr.localisation.shortcut import REGIONS, border, corners, measure_shortcuts, regions, shares, shortcut_report

PREPROCESS = Preprocess(resize=(100, 100), crop=None)


def test_corners_and_border_by_hand():
    mask = corners((100, 100))
    assert mask.sum() == 4 * 22 * 22 and mask[:22, :22].all() and mask[78:, 78:].all() and not mask[22:78].any()
    assert corners((100, 200)).sum() == 4 * 32 * 32                           # sqrt(0.05 * 20000) = 31.6
    frame = border((100, 200))
    assert frame.sum() == 100 * 200 - 90 * 190 and frame[0].all() and not frame[5:-5, 5:-5].any()
    assert border((10, 10)).sum() == 36                                       # a pixel at least


def test_shares_by_hand():
    masks = np.stack([corners((100, 100)), border((100, 100))])
    uniform = shares(np.full((100, 100), 0.3, np.float32), masks)
    assert uniform == pytest.approx([0.1936, 0.19])
    marker = np.zeros((100, 100), np.float32)
    marker[10, 90] = 2
    assert shares(marker, masks).tolist() == [1, 0]
    marker[50, 50] = 6
    assert shares(marker, masks).tolist() == [0.25, 0]
    assert np.isnan(shares(np.zeros((100, 100)), masks)).all()


def test_regions_of_a_phantom():
    shown = phantom.draw(1, 0, 224)
    masks, found = regions(np.repeat(shown.image[..., None], 3, axis=2))
    lungs = shares(shown.lungs.astype("float32"), masks)
    assert found and masks.shape == (len(REGIONS), 224, 224)
    assert lungs[0] < 0.3 and lungs[1] < 0.1 and lungs[3] < 0.1
    assert masks.mean(axis=(1, 2))[1] > 0.3


class Fake:
    """Maps by class: 0 in a corner, 1 everywhere, 2 nothing."""
    methods = titles = {"fake": "fake"}

    def __call__(self, x, classes):
        maps = np.zeros((*classes.shape, 100, 100), np.float32)
        maps[classes == 0, :10, :10] = 1
        maps[classes == 1] = 0.5
        return {"fake": maps}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    return [folder / row["file"] for row in phantom.write_folder(folder, per_class=2, size=100)]


def test_report(paths, tmp_path):
    classes = [[0], [0, 1], [1], [], [2], [0], [1], []]
    seen = measure_shortcuts(Fake(), PREPROCESS, paths, classes, 4, batch_size=3, workers=0)
    assert seen.labels.tolist() == [0, 0, 1, 1, 2, 0, 1] and seen.images.tolist() == [0, 1, 1, 2, 4, 5, 6]
    corner = seen.mass["fake"][seen.labels == 0]
    assert (corner[:, 2] == 1).all() and np.allclose(corner[:, 3], 0.75)      # 10 x 10 in a frame of 5
    assert seen.mass["fake"][seen.labels == 1] == pytest.approx(seen.uniform[seen.labels == 1])
    assert np.isnan(seen.mass["fake"][seen.labels == 2]).all()
    assert seen.means["fake"][1] == pytest.approx(0.5) and np.isnan(seen.means["fake"][3]).all()
    mean = np.mean([PREPROCESS.view(read_image(paths[k])) for k in (0, 1, 5)], axis=0)
    assert seen.views[0] == pytest.approx(mean)

    report = shortcut_report(seen, ["A", "B", "C", "D"], [str(k // 2) for k in range(8)], Fake.titles)
    text = printed(report.section)
    assert "No image has D" in text and "1.00 (1.00 to 1.00) [0.19]" in text
    report.save(tmp_path)
    save_report(tmp_path, "phantoms", [report.section])
    rows = {(row["class"], row["region"]): row for row in csv.DictReader((tmp_path / "shortcut.csv").open())}
    assert rows["A", "corners"]["share"] == "1" and rows["A", "corners"]["images"] == "3"
    assert rows["B", "border"]["share"] == rows["B", "border"]["uniform"] == "0.19"
    assert rows["C", "border"]["share"] == ""                                 # 0/0
    assert json.loads((tmp_path / "report.json").read_text())["shortcut"]["maps"]["fake"]["A"]["corners"]["share"] == 1
    # Three classes have images; a heading of 24.
    assert read_image(tmp_path / "shortcut_fake.png").shape == (124, 300, 3)


def test_a_list_without_any_finding(paths):
    with pytest.raises(InputError, match="none of the images in the list has any of the classes"):
        measure_shortcuts(Fake(), PREPROCESS, paths, [[]] * len(paths), 4)
