"""Cached images are those of the files, whatever happens to either."""
import os

import numpy as np
import pytest

from chexnet.data import ChestXrayDataSet
from cxr.data import cache
from cxr.data.cache import ResizedImages
from cxr.data.dataset import XrayDataset
from cxr.data.images import read_image
from cxr.data.transforms import Augment, Preprocess, resize
from cxr.errors import InputError
from cxr.visual.image_files import save_picture


@pytest.fixture
def grey(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 48, 1), dtype=np.uint8)
    save_picture(tmp_path / "grey.png", np.repeat(pixels, 3, axis=2))
    return tmp_path / "grey.png"


def entries(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size, antialias, shape", [(32, True, (40, 32)), ((20, 30), False, (20, 30))])
def test_first_and_second_reading_are_the_resized_file(grey, tmp_path, monkeypatch, size, antialias, shape):
    images = ResizedImages(tmp_path / "cache", size, antialias)
    expected = resize(read_image(grey), size, antialias)
    assert expected.shape == (*shape, 3) and np.array_equal(images(grey), expected)
    entry, = entries(tmp_path / "cache")
    assert entry.stat().st_size == 20 + shape[0] * shape[1]                   # one channel
    monkeypatch.setattr(cache, "read_image", lambda path: pytest.fail("decoded again"))
    assert np.array_equal(images(grey), expected)


def test_colour_is_kept(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    save_picture(tmp_path / "colour.png", pixels)
    images = ResizedImages(tmp_path / "cache", 8, True)
    assert np.array_equal(images(tmp_path / "colour.png"), pixels)
    assert np.array_equal(images(tmp_path / "colour.png"), pixels)


def test_a_changed_file_or_size_is_another_entry(grey, tmp_path):
    images = ResizedImages(tmp_path / "cache", 16, True)
    images(grey)
    save_picture(grey, np.full((60, 48, 3), 7, np.uint8))
    assert (images(grey) == 7).all()
    assert ResizedImages(tmp_path / "cache", 24, True)(grey).shape == (30, 24, 3)
    ResizedImages(tmp_path / "cache", 24, False)(grey)
    assert len(entries(tmp_path / "cache")) == 4


@pytest.mark.parametrize("harm", [lambda data: data[:10], lambda data: data[:-1], lambda data: b"",
                                  lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: b"x" + data[1:]])
def test_a_damaged_entry_is_made_anew(grey, tmp_path, harm):
    images = ResizedImages(tmp_path / "cache", 16, True)
    expected = images(grey).copy()
    entry, = entries(tmp_path / "cache")
    whole = entry.read_bytes()
    entry.write_bytes(harm(whole))
    assert np.array_equal(images(grey), expected) and entry.read_bytes() == whole


def test_a_full_disk_costs_speed_only(grey, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(cache, "replacing", full)
    assert ResizedImages(tmp_path / "cache", 16, True)(grey).shape == (20, 16, 3)


def test_bad_files_are_told_as_without_a_cache(tmp_path):
    images = ResizedImages(tmp_path / "cache", 16, True)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="text.png holds text"):
        images(tmp_path / "text.png")
    with pytest.raises(InputError, match="gone.png does not exist"):
        images(tmp_path / "gone.png")
    assert entries(tmp_path / "cache") == []


@pytest.mark.parametrize("transform", [Preprocess(), Preprocess(antialias=False), Augment(Preprocess())])
def test_training_sees_the_same_with_and_without(data_dir, tmp_path, transform):
    nih = data_dir / "nih14"
    (tmp_path / "list.txt").write_text("".join((nih / "train_list.txt").read_text().splitlines(True)[:4]))
    plain, cached = (ChestXrayDataSet(nih / "images", tmp_path / "list.txt", transform, seed=1) for _ in range(2))
    preprocess = getattr(transform, "preprocess", transform)
    cached.read = ResizedImages(tmp_path / "cache", preprocess.resize, preprocess.antialias)
    for _ in range(2):
        for index in range(4):
            assert np.array_equal(plain[index][0], cached[index][0])


def test_a_large_image_is_the_same_and_quicker_to_read(data_dir, tmp_path):
    path = data_dir / "published_cams" / "00000001_000.png"
    preprocess = Preprocess()
    plain, cached = (XrayDataset(path.parent, [path.name], np.zeros(1), ["a"], preprocess) for _ in range(2))
    cached.read = ResizedImages(tmp_path / "cache", preprocess.resize, preprocess.antialias)
    assert np.array_equal(cached[0][0], plain[0][0]) and np.array_equal(cached[0][0], plain[0][0])
    assert os.path.getsize(entries(tmp_path / "cache")[0]) == 20 + 256 * 256
