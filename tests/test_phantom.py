"""cxr.data.phantom: drawings repeat, boxes hold the signs, brightness does not tell the class, files are whole."""

import csv
import math

import cv2
import numpy as np
import pytest

from cxr.data import phantom
from cxr.data.images import read_image
from cxr.data.phantom import CLASS_NAMES, draw, read_boxes, write_folder
from cxr.errors import InputError

LABELS = range(len(CLASS_NAMES))


def crop(image, box):
    x, y, w, h = map(int, box)
    return image[y:y + h, x:x + w]


def sign_change(label, seed, size=128):
    """|with - without| the sign, float (H, W), and the phantom."""
    shown = draw(label, seed, size)
    return np.abs(shown.image.astype(float) - draw(label, seed, size, sign=False).image), shown


@pytest.mark.parametrize("label", LABELS)
def test_same_arguments_same_bytes(label):
    first, again = draw(label, 3), draw(label, 3)
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.box, first.label, first.patient) == (again.box, label, again.patient)
    assert first.image.shape == (256, 256) and first.image.dtype == np.uint8


def test_rgb_is_what_a_file_would_give(tmp_path):
    drawn = draw(2, 5, size=64)
    cv2.imwrite(str(tmp_path / "nodule.png"), drawn.image)
    np.testing.assert_array_equal(drawn.rgb, read_image(tmp_path / "nodule.png"))


@pytest.mark.parametrize("label", LABELS)
def test_seeds_and_views_differ(label):
    base, other, view = draw(label, 3), draw(label, 4), draw(label, 3, view=1)
    assert np.abs(base.image.astype(float) - other.image).mean() > 4
    assert np.abs(base.image.astype(float) - view.image).mean() > 4
    assert base.patient == view.patient != other.patient
    assert len({draw(k, 3).patient for k in LABELS}) == len(LABELS)


@pytest.mark.parametrize("label", LABELS)
def test_box_holds_the_sign_and_little_else(label):
    for seed in range(12):
        change, shown = sign_change(label, seed)
        x, y, w, h = shown.box
        assert min(x, y) >= 0 and min(w, h) > 0 and max(x + w, y + h) <= 128
        assert change.sum() > 0
        assert crop(change, shown.box).sum() >= 0.9 * change.sum(), seed
        # Tight: the change reaches into the outer fifth on all four sides.
        across, down = (crop(change, shown.box).max(axis) > 3 for axis in (0, 1))
        for profile in across, down:
            fifth = math.ceil(len(profile) / 5)
            assert profile[:fifth].any() and profile[-fifth:].any(), seed


def test_box_is_the_same_place_at_every_size():
    for label in LABELS:
        small, large = np.array(draw(label, 5, 128).box), np.array(draw(label, 5, 512).box)
        assert np.abs(small * 4 - large).max() <= 12


def test_signs_have_the_right_brightness():
    def mean_change(label):
        return np.mean([crop(draw(label, s, 128).image.astype(float) - draw(label, s, 128, sign=False).image,
                             draw(label, s, 128).box).mean() for s in range(5)])
    assert mean_change(CLASS_NAMES.index("Pneumothorax")) < -1
    for name in ("Cardiomegaly", "Effusion", "Nodule"):
        assert mean_change(CLASS_NAMES.index(name)) > 5, name


def test_signs_of_the_lungs_come_on_both_sides():
    for name in ("Effusion", "Nodule", "Pneumothorax"):
        centres = [x + w / 2 for x, _, w, _ in (draw(CLASS_NAMES.index(name), s, 64).box for s in range(16))]
        assert 3 <= sum(c < 32 for c in centres) <= 13, name


def test_normal_hearts_are_clearly_smaller():
    assert phantom.CTR_NORMAL[1] < 0.5 < phantom.CTR_ENLARGED[0]
    x, y = np.meshgrid(np.linspace(-1, 1, 401), np.linspace(-1, 1, 401))
    for seed in range(5):
        chest = phantom._Chest(np.random.default_rng(seed))
        for ctr in (chest.ctr, 0.6):
            inside = (chest.heart(x, y, ctr)[0] > 0).any(0)
            assert np.ptp(x[0][inside]) / (2 * chest.width) == pytest.approx(ctr, abs=0.01)


def test_brightness_and_contrast_do_not_tell_the_class():
    images = [[draw(label, seed, 64).image for seed in range(60)] for label in LABELS]
    for statistic in (np.mean, np.std):
        values = np.array([[statistic(image) for image in row] for row in images])
        # The classes' averages lie within less than one spread of the images of a class.
        assert np.ptp(values.mean(1)) < values.std(1).mean(), statistic.__name__


@pytest.mark.parametrize("arguments", [(4, 0), (-1, 0), ("Nodule", 0), (0, -1), (0, 0, 32), (0, 0, 64, -1)])
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match="must be"):
        draw(*arguments)


def test_write_folder(tmp_path):
    calls = []
    rows = write_folder(tmp_path, per_class=5, size=64, progress=lambda *done: calls.append(done))
    assert calls == [(i, 20) for i in range(1, 21)]
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    images = sorted(f"{name}/{name}-{i:04d}.png" for name in CLASS_NAMES for i in range(1, 6))
    assert files == sorted([*images, "boxes.csv", "sources.csv"])  # and no temporary file

    boxes = read_boxes(tmp_path / "boxes.csv")
    assert list(boxes) == [row["file"] for row in rows] and sorted(boxes) == images
    with open(tmp_path / "sources.csv", newline="") as stream:
        sources = list(csv.DictReader(stream))
    assert list(sources[0]) == ["file", "source_file", "patient"]
    for row, source in zip(rows, sources):
        assert boxes[row["file"]] == tuple(row[k] for k in "xywh")
        assert row["file"].startswith(row["label"] + "/")
        assert source == {k: row[k] for k in source}
    # Patients 0, 1, 2, 2, 3: the third has two different views.
    assert [row["patient"][-1] for row in rows[:5]] == list("01223")
    first, second = (cv2.imread(str(tmp_path / rows[i]["file"]), cv2.IMREAD_UNCHANGED) for i in (2, 3))
    assert np.array_equal(first, draw(0, 2, 64).image)
    assert np.array_equal(second, draw(0, 2, 64, view=1).image)


def test_write_folder_again_and_with_another_seed(tmp_path):
    first = write_folder(tmp_path / "a", per_class=2, size=64)
    assert write_folder(tmp_path / "a", per_class=2, size=64) == first
    other = write_folder(tmp_path / "b", per_class=2, size=64, seed=1)
    assert not {row["patient"] for row in first} & {row["patient"] for row in other}


def test_write_folder_refuses(tmp_path):
    with pytest.raises(InputError, match="per_class must be 1 to 9999, got 0"):
        write_folder(tmp_path, per_class=0)
    (tmp_path / "Nodule").mkdir()
    (tmp_path / "Nodule" / "mine.png").write_bytes(b"")
    with pytest.raises(InputError, match="mine.png"):
        write_folder(tmp_path, per_class=1, size=64)


def test_an_interrupted_image_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="disk full"):
        write_folder(tmp_path, per_class=1, size=64)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


HEADER = "file,label,x,y,w,h\n"


def test_bad_boxes(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(HEADER + "a.png,Nodule,1,2,3,4\na.png,Nodule,1,2,3,5\n")
    with pytest.raises(InputError, match="'a.png' stands there twice"):
        read_boxes(path)
    path.write_text(HEADER + "a.png,Nodule,1,2,3\n")                          # the rest: tests/test_boxes.py
    with pytest.raises(InputError, match="line 2: expected 6 fields"):
        read_boxes(path)


@pytest.mark.parametrize("label", LABELS)
def test_lungs_are_dark_and_lie_beside_the_midline(label):
    shown = draw(label, 1, 128, sign=False)
    lungs = shown.lungs
    assert lungs.shape == shown.image.shape and lungs.dtype == bool and 0.1 < lungs.mean() < 0.45
    middle = shown.image[32:96, 32:96]
    inside = lungs[32:96, 32:96]
    assert middle[inside].mean() < middle[~inside].mean() - 30
    assert lungs[:, :64].sum() > 0.3 * lungs.sum() and lungs[:, 64:].sum() > 0.3 * lungs.sum()
    if label != 0:                                                            # an enlarged heart takes some
        assert (draw(label, 1, 128).lungs == lungs).all()                     # the sign lies in them


def test_boxes_written_by_a_spreadsheet(tmp_path):
    path = tmp_path / "boxes.csv"
    text = HEADER + '"a, b.png",Nodule,1,2.5,3,4\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_boxes(path) == {"a, b.png": (1.0, 2.5, 3.0, 4.0)}
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\x00")
    with pytest.raises(InputError, match="line 1: expected the header"):
        read_boxes(path)
