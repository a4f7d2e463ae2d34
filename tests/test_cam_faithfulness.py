"""Faithfulness on models whose right answers are known."""
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from cam_models import ClosedNet, SmallNet, images, seeded
from paddle import nn

from cxr.cam import METHODS, GradCAM
from cxr.cam.faithfulness import (
    ProbabilityMeter,
    area,
    average_drop,
    deletion,
    evaluate,
    insertion,
    randomisation,
    rank_correlation,
    road,
)
from cxr.cam.imputation import impute
from cxr.errors import InputError


class TopLeft(nn.Layer):
    """Probability of class 0: how bright the top left quarter of an 8 x 8 image is."""

    def forward(self, x):
        p = x[:, :, :4, :4].mean((1, 2, 3)).clip(0, 1)
        return paddle.stack([p, 1 - p], 1)


@pytest.fixture()
def good():
    maps = np.zeros((2, 8, 8), "float32")
    maps[:, :4, :4] = 1
    return maps


@pytest.fixture()
def meter():
    x = np.ones((2, 3, 8, 8), "float32")
    x[1] = 0.5
    return ProbabilityMeter(TopLeft(), x, targets=0)


def test_deletion_by_hand(meter, good):
    curve = deletion(meter, good, steps=8)
    # A step is 8 pixels, half of the quarter that matters.
    np.testing.assert_allclose(curve[:, 0], [1, 0.5, 0, 0, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(area(curve), [(0.75 + 0.25) / 8, (0.375 + 0.125) / 8], atol=1e-6)
    worst = deletion(meter, -good, steps=8)
    np.testing.assert_allclose(worst[:, 0], [1, 1, 1, 1, 1, 1, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(deletion(meter, good, steps=2, baseline=1.0)[-1], [1, 1])


def test_insertion_by_hand(good):
    x = np.zeros((2, 3, 8, 8), "float32")
    x[:, :, :4, :4] = 1
    meter = ProbabilityMeter(TopLeft(), x, 0)
    curve, worst = insertion(meter, good, steps=8), insertion(meter, -good, steps=8)
    assert 0.1 < curve[0, 0] < 0.9                                       # blurred
    np.testing.assert_allclose(curve[2:], 1, atol=1e-6)
    np.testing.assert_allclose(worst[:7], np.broadcast_to(curve[0], (7, 2)), atol=1e-6)
    assert (area(curve) > area(worst)).all()


def test_average_drop_and_increase_by_hand(meter, good):
    np.testing.assert_allclose(average_drop(meter, good), [[0, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(average_drop(meter, 1 - good), [[1, 1], [0, 0]], atol=1e-6)
    x = np.ones((1, 3, 8, 8), "float32")
    x[:, :, :2] = -0.5                                                   # probability (1 - 0.5) / 2
    lower_half = np.repeat(np.arange(8) >= 2, 8).reshape(1, 8, 8).astype("float32")
    np.testing.assert_allclose(average_drop(ProbabilityMeter(TopLeft(), x, 0), lower_half), [[0], [1]], atol=1e-6)


def test_road_by_hand(good):
    x = np.zeros((2, 3, 8, 8), "float32")
    x[:, :, :4, :4] = 1
    meter = ProbabilityMeter(TopLeft(), x, 0)
    np.testing.assert_allclose(road(meter, good, percentages=[25], noise=0), 0.5, atol=0.01)
    np.testing.assert_allclose(road(meter, -good, percentages=[25], noise=0), -0.5, atol=0.01)
    np.testing.assert_array_equal(road(meter, good), road(meter, good))  # the noise is seeded
    with pytest.raises(InputError, match="percentages"):
        road(meter, good, percentages=[100])


def test_imputation_solves_its_equations():
    rng = np.random.default_rng(0)
    x, removed = rng.normal(size=(2, 2, 11, 9)).astype("float32"), rng.random((2, 11, 9)) < 0.7
    filled = impute(x, removed, noise=0)
    kept = np.broadcast_to(~removed[:, None], x.shape)
    np.testing.assert_array_equal(filled[kept], x[kept])
    for image, mask in enumerate(removed):
        where = {pixel: i for i, pixel in enumerate(map(tuple, np.argwhere(mask)))}
        system, right = np.zeros((len(where),) * 2), np.zeros((len(where), 2))
        for (row, column), i in where.items():
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    near, weight = (row + dy, column + dx), (0, 1 / 6, 1 / 12)[abs(dy) + abs(dx)]
                    if 0 <= near[0] < 11 and 0 <= near[1] < 9:
                        system[i, i] += weight
                        if near in where:
                            system[i, where[near]] -= weight
                        else:
                            right[i] += weight * x[image][:, near[0], near[1]]
        np.testing.assert_allclose(filled[image][:, mask].T, np.linalg.solve(system, right), atol=2e-3)


def test_imputation_noise_falls_on_filled_pixels_only():
    removed = np.zeros((1, 32, 32), bool)
    removed[:, 8:24, 8:24] = True
    filled = impute(np.full((1, 3, 32, 32), 2.0), removed, noise=0.1)
    assert (filled[0][:, ~removed[0]] == 2).all()
    assert abs(filled[0][:, removed[0]].std() - 0.1) < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_evaluate_any_method(method):
    model, x = seeded(ClosedNet()), images(3, 32)
    classes = [0, 1, 2]
    result = evaluate(model, x, METHODS[method](model, "relu3")(x, classes), classes, steps=4)
    assert set(result) == {"deletion", "insertion", "average_drop", "increase", "road"}
    assert all(values.shape == (3,) and np.isfinite(values).all() for values in result.values())


def test_batches_change_nothing():
    model, x = seeded(ClosedNet()), images(3, 32)
    maps = GradCAM(model, "relu3")(x, 1)
    expected = evaluate(model, x, maps, 1, steps=5)
    for size in (1, 4, 7):
        for name, values in evaluate(model, x, maps, 1, steps=5, batch_size=size).items():
            np.testing.assert_allclose(values, expected[name], atol=1e-5)


def test_probabilities_are_asked_for():
    model, x = seeded(SmallNet()), images(2, 32)
    with pytest.raises(InputError, match="probability="):
        ProbabilityMeter(model, x)
    meter = ProbabilityMeter(model, x, probability=F.softmax)
    np.testing.assert_array_equal(meter.classes, model(x).numpy().argmax(1))
    np.testing.assert_allclose(meter([meter.images])[0], meter.unaltered, atol=1e-6)


def test_maps_that_do_not_fit(meter, good):
    for maps in (good[:1], good[:, None], good.tolist()):
        with pytest.raises(InputError, match="maps must be"):
            deletion(meter, maps)
    with pytest.raises(InputError, match="one class per image"):
        ProbabilityMeter(TopLeft(), meter.x, "all")


def test_randomisation_tells_a_map_of_the_model_from_one_of_the_image():
    model, x = seeded(ClosedNet()), images(2, 32)
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    trained = randomisation(model, GradCAM(model, "relu3"), x)
    assert [name for name, _ in trained] == ["fc", "conv3", "conv2", "conv1"]
    assert all(similarity.shape == (2,) for _, similarity in trained)
    assert np.abs(trained[-1][1]).max() < 0.7
    blind = randomisation(model, lambda x, classes: x.abs().mean(1).numpy(), x, stages=2)
    assert [name for name, _ in blind] == ["conv3", "conv1"]
    np.testing.assert_allclose([similarity for _, similarity in blind], 1)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])


def test_randomisation_puts_the_weights_back_after_an_exception():
    model, calls = seeded(ClosedNet()), []
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}

    def fails(x, classes):
        calls.append(model.fc.weight.numpy().copy())
        if len(calls) > 2:
            raise KeyError("mine")
        return np.zeros((2, 32, 32))

    with pytest.raises(KeyError):
        randomisation(model, fails, images(2, 32), targets=1)
    assert (calls[1] != calls[0]).any()                                  # it was shuffled
    np.testing.assert_array_equal(np.sort(calls[1], None), np.sort(calls[0], None))
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])


def test_rank_correlation():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (3, 6, 7)), rng.integers(0, 9, (3, 6, 7))
    b[1], b[2] = a[1] ** 3, 0
    expected = [stats.spearmanr(a[0].ravel(), b[0].ravel())[0], 1, 0]
    np.testing.assert_allclose(rank_correlation(a, b), expected, atol=1e-9)
