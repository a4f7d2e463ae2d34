"""From picture to network input: equal to Paddle's own transforms, and by hand where that is shorter."""
import json

import numpy as np
import paddle.vision.transforms as T
import pytest
from PIL import Image

from cxr.data.transforms import Augment, Preprocess, TenCrop, centre_crop, resize, ten_crop
from cxr.errors import InputError

SIZES = [(64, 64), (64, 97), (131, 64), (55, 40), (200, 333), (301, 100), (41, 41)]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_paddle_sees(image, antialias):
    return Image.fromarray(image) if antialias else image


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [64, 65, (64, 64), (50, 70)])
@pytest.mark.parametrize("shape", SIZES)
def test_resize_equals_paddle(shape, size, antialias):
    image = noise(*shape)
    theirs = np.asarray(T.Resize(size)(as_paddle_sees(image, antialias)))
    ours = resize(image, size, antialias)
    assert ours.shape == theirs.shape and (ours == theirs).all()


def test_the_two_kinds_of_resize_differ():
    image = noise(200, 200)
    assert np.abs(resize(image, 50, True).astype(int) - resize(image, 50, False)).mean() > 10


def test_an_integer_is_the_shorter_side():
    assert resize(noise(100, 50), 20, True).shape == (40, 20, 3)
    assert resize(noise(50, 101), 20, False).shape == (20, 40, 3)           # 40.4, cut


def test_a_fitting_image_is_untouched():
    image = noise(64, 97)
    assert resize(image, 64, True) is image and resize(image, (64, 97), False) is image


@pytest.mark.parametrize("shape", SIZES)
def test_centre_crop_equals_paddle(shape):
    image = noise(*shape)
    for side in (40, 33, 1):
        assert (centre_crop(image, side) == T.CenterCrop(side)(image)).all()


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("shape", SIZES)
def test_the_whole_equals_paddle(shape, antialias):
    """Resize, CenterCrop, ToTensor, Normalize: what the published CheXNet does."""
    image = noise(*shape)
    theirs = T.Compose([T.Resize(64), T.CenterCrop(56), T.ToTensor(), T.Normalize(MEAN, STD)])(
        as_paddle_sees(image, antialias)).numpy()
    preprocess = Preprocess(64, 56, antialias=antialias)
    ours = preprocess(image)
    assert ours.shape == theirs.shape == preprocess.input_shape == (3, 56, 56)
    assert ours.dtype == np.float32 and ours.flags.c_contiguous
    assert np.abs(ours - theirs).max() < 1e-6
    assert (preprocess.to_input(preprocess.view(image)) == ours).all()
    assert (preprocess(Image.fromarray(image)) == ours).all()
    assert (preprocess(image.astype("float32")) == ours).all()


def test_the_notebook_of_covid_keeps_0_to_255():
    preprocess = Preprocess((2, 2), None, scale=1.0, mean=(129.9,) * 3, std=(59.0,) * 3)
    assert preprocess.input_shape == (3, 2, 2)
    image = np.array([[[0, 1, 2]] * 2, [[255, 129, 130]] * 2], np.uint8)
    expected = (np.array([[0, 255], [1, 129], [2, 130]]) - 129.9) / 59.0
    assert np.allclose(preprocess(image)[:, :, 0], expected, atol=1e-6)


def test_input_shape_without_a_crop():
    assert Preprocess((30, 20), None).input_shape == (3, 30, 20)
    assert Preprocess(30, None).input_shape == (3, 30, 30)


def test_to_input_takes_batches():
    batch = np.stack([noise(8, 9, seed) for seed in range(4)])
    got = Preprocess().to_input(batch)
    assert got.shape == (4, 3, 8, 9)
    assert (got[2] == Preprocess().to_input(batch[2])).all()


@pytest.mark.parametrize("preprocess", [
    Preprocess(), Preprocess((224, 200), None, 1.0, (129.90909919,) * 3, (59.0183735,) * 3, False),
    Preprocess(8, 8, antialias=False)])
def test_json_round_trip(preprocess):
    again = Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict())))
    assert again == preprocess and hash(again) == hash(preprocess)
    assert (again(noise(300, 280)) == preprocess(noise(300, 280))).all()


def test_foreign_fields_are_refused():
    with pytest.raises(InputError, match="newer version"):
        Preprocess.from_dict({**Preprocess().to_dict(), "gamma": 2})


def test_a_crop_larger_than_the_image_is_refused():
    for transform in (Preprocess(20, 24), TenCrop(Preprocess(20, 24)), Preprocess((30, 20), 24)):
        with pytest.raises(InputError, match="a crop of 24 does not fit into an image of [23]0 x 2"):
            transform(noise(40, 40))
    with pytest.raises(InputError, match="crop of 24"):
        Augment(Preprocess(20, 24))(noise(40, 40), np.random.default_rng(0))
    with pytest.raises(InputError, match="--ten_crop"):
        TenCrop(Preprocess(20, None))(noise(40, 40))


# --- ten crops -----------------------------------------------------------------------------------------------------

def test_ten_crop_order():
    image = np.repeat(np.arange(9, dtype=np.uint8).reshape(3, 3, 1), 3, axis=2)
    first = [crop[0, 0, 0] for crop in ten_crop(image, 1)]
    #   0 1 2                                         2 1 0
    #   3 4 5   corners row by row, then the centre   5 4 3   mirrored, likewise
    #   6 7 8                                         8 7 6
    assert first == [0, 2, 6, 8, 4, 2, 0, 8, 6, 4]
    second = ten_crop(image, 2)
    assert second.shape == (10, 2, 2, 3)
    assert second[0, ..., 0].tolist() == [[0, 1], [3, 4]] and second[3, ..., 0].tolist() == [[4, 5], [7, 8]]
    assert second[5, ..., 0].tolist() == [[2, 1], [5, 4]] and second[8, ..., 0].tolist() == [[4, 3], [7, 6]]


def test_ten_crop_contains_the_plain_input():
    preprocess, image = Preprocess(64, 56), noise(90, 120)
    crops = TenCrop(preprocess)(image)
    assert crops.shape == (10, 3, 56, 56)
    assert (crops[4] == preprocess(image)).all()
    assert (TenCrop(preprocess)(Image.fromarray(image)) == crops).all()


# --- augmentation --------------------------------------------------------------------------------------------------

def coordinates(height, width):
    """A picture whose pixels tell where they come from: red is the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([columns, rows, rows * 0]).astype(np.uint8)


def test_augment_covers_every_place_and_both_sides():
    plain = Preprocess(8, 6, scale=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    rng, seen = np.random.default_rng(0), set()
    for _ in range(500):
        columns, rows, _ = Augment(plain)(coordinates(8, 10), rng)
        step = columns[0, 1] - columns[0, 0]
        left, top = columns.min(), rows.min()
        assert columns.shape == (6, 6) and abs(step) == 1 and (np.diff(rows, axis=0) == 1).all()
        assert (np.sort(columns[0]) == left + np.arange(6)).all()
        seen.add((int(left), int(top), int(step)))
    assert seen == {(left, top, step) for left in range(5) for top in range(3) for step in (-1, 1)}


def test_augment_depends_on_the_generator_alone():
    augment, image = Augment(Preprocess(64, 50)), noise(100, 80)
    draws = [augment(image, np.random.default_rng([0, 3, index])) for index in range(6)]
    assert all((augment(image, np.random.default_rng([0, 3, index])) == draw).all() for index, draw in enumerate(draws))
    assert len({draw.tobytes() for draw in draws}) == 6


def test_augment_without_chance_is_the_plain_transform():
    preprocess, image = Preprocess(64, 64), noise(100, 100)                  # a crop that fits in one way only
    still = Augment(preprocess, flip=0)
    assert (still(image, np.random.default_rng(0)) == preprocess(image)).all()
    mirrored = Augment(preprocess, flip=1)(image, np.random.default_rng(0))
    assert (mirrored == preprocess(image)[..., ::-1]).all() and mirrored.flags.c_contiguous
    assert Augment(Preprocess((30, 20), None))(image, np.random.default_rng(0)).shape == (3, 30, 20)


def test_zoom_enlarges_a_part_of_at_least_four_fifths():
    ramp = np.repeat(np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 100, axis=0), 3, axis=2)
    augment = Augment(Preprocess((100, 200), None, scale=1.0, mean=(0,) * 3, std=(1,) * 3), flip=0, zoom=0.2)
    draws = [augment(ramp, np.random.default_rng(index)) for index in range(200)]
    assert {draw.shape for draw in draws} == {(3, 100, 200)}
    first, last = (np.array([draw[0, 0, column] for draw in draws]) for column in (0, -1))
    assert 159 <= (last - first).min() < 165 and 195 < (last - first).max() <= 199
    assert first.min() == 0 and last.max() == 199 and first.max() > 30       # the part lies anywhere
    assert all((np.diff(draw[0, 0]) >= 0).all() and np.ptp(draw, axis=(0, 1)).max() <= 1 for draw in draws)
