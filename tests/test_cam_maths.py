"""The methods as functions of arrays, by hand."""
import numpy as np
import paddle
import pytest

from cxr.cam import maths

# One image, two channels of 1 x 2.
A = np.array([[[[1, 3]], [[2, 0]]]], "float32")
G = np.array([[[[2, 0]], [[-1, -3]]]], "float32")


def check(result, expected):
    np.testing.assert_allclose(result, np.array([[expected]]), rtol=1e-5, atol=1e-6)


def test_gradcam():
    check(maths.gradcam(A, G), [1 * 1 - 2 * 2, 1 * 3 - 2 * 0])          # weights: means 1 and -2


def test_xgradcam():
    w0, w1 = (1 * 2 + 3 * 0) / 4, (2 * -1 + 0) / 2
    check(maths.xgradcam(A, G), [w0 * 1 + w1 * 2, w0 * 3])


def test_layercam():
    check(maths.layercam(A, G), [2 * 1, 0])                             # negative gradients count for nothing


def test_gradcam_plus_plus():
    alpha = 4 / (2 * 4 + 4 * 8)                                         # g = 2, sum of the channel 4
    check(maths.gradcam_plus_plus(A, G, eps=0), [2 * alpha * 1, 2 * alpha * 3])


def test_gradcam_plus_plus_without_eps_forgives_zero_gradients():
    assert np.isfinite(maths.gradcam_plus_plus(A, 0 * G, eps=0)).all()


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 30, 2, 3)])        # more positions, more channels
def test_first_component_is_the_svd_up_to_the_sign(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    ours = maths.first_component(x)
    for image, map_ in zip(x, ours):
        rows = image.reshape(shape[1], -1).T
        centred = rows - rows.mean(0)
        expected = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
        expected *= np.sign(expected @ rows.mean(1))                    # agrees with the mean activation
        np.testing.assert_allclose(map_.ravel(), expected, atol=1e-4)


def test_first_component_agrees_with_the_mean_activation():
    spot = np.zeros((1, 4, 3, 3), "float32")
    spot[:, :, 1, 2] = [5, 4, 3, 2]
    assert maths.first_component(spot)[0].argmax() == 5
    assert maths.first_component(-spot)[0].argmin() == 5
    assert not maths.first_component(0 * spot).any()


def test_rescale():
    maps = np.array([[[[0, 2]], [[1, 5]], [[7, 7]]]], "float32")
    np.testing.assert_allclose(maths.rescale(maps)[0, :, 0], [[0, 1], [0, 1], [0, 0]])
    shared = maths.rescale(maps, shared=True)
    np.testing.assert_allclose(shared[0, :, 0] * 7, [[0, 2], [1, 5], [7, 7]], rtol=1e-6)


def test_rescale_does_not_amplify_rounding():
    maps = np.float32(0.1) + np.array([[[[0, 1e-9], [-1e-9, 5e-9]]]], "float32")
    assert not maths.rescale(maps).any()
    assert maths.rescale(1e-20 * np.array([[0.0, 1.0]])).max() == 1     # small is not flat


def test_upsample_is_that_of_opencv():
    cv2 = pytest.importorskip("cv2")
    maps = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype("float32")
    for ours, one in zip(maths.upsample(maps, (10, 9))[0], maps[0]):
        np.testing.assert_allclose(ours, cv2.resize(one, (9, 10)), atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape, size", [((7, 7), (224, 224)), ((5, 9), (3, 40)), ((1, 4), (6, 2)), ((3, 3), (3, 3))])
def test_upsample_is_that_of_paddle(shape, size, align_corners):
    maps = np.random.default_rng(0).normal(size=(2, 3, *shape)).astype("float32")
    theirs = paddle.nn.functional.interpolate(paddle.to_tensor(maps), size=list(size), mode="bilinear",
                                              align_corners=align_corners)
    np.testing.assert_allclose(maths.upsample(maps, size, align_corners), theirs.numpy(), atol=1e-5)


def test_channel_weights_weigh_whole_channels():
    activations = np.arange(16, dtype="float32").reshape(2, 2, 2, 2)
    weights = np.array([[1, 10], [2, 0]], "float32")[:, :, None, None]
    np.testing.assert_array_equal(maths.combine(activations, weights), [[[40, 51], [62, 73]], [[16, 18], [20, 22]]])
    same = [[[40, 51], [62, 73]], [[128, 139], [150, 161]]]
    np.testing.assert_array_equal(maths.combine(activations, weights[:1]), same)
