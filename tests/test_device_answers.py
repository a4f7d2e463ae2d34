"""The stored answers are those of NumPy, and what does not give them is noticed."""
import numpy as np
import pytest

from cxr.device.known_answers import EXPECTED, compute, grid, summary, wrong


def convolved(image, kernel, stride):
    image = np.pad(image.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,kcij->nkhw", windows, kernel.astype(float))


def gradients(image, kernel, weights, stride):
    """Of the weighted sum of the convolution, with respect to image and kernel."""
    padded = np.pad(image.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    by_image, by_kernel = np.zeros(padded.shape), np.zeros(kernel.shape)
    for n, k, i, j in np.ndindex(weights.shape):
        part = np.s_[n, :, i * stride:i * stride + 3, j * stride:j * stride + 3]
        by_image[part] += weights[n, k, i, j] * kernel[k]
        by_kernel[k] += weights[n, k, i, j] * padded[part]
    return by_image[:, :, 1:-1, 1:-1], by_kernel


def by_numpy():
    x, image, kernel = grid(4, 16).astype(float), grid(2, 3, 9, 9), grid(4, 3, 3, 3, step=5)
    small = convolved(image, kernel, 2)
    b = grid(4, 3, 5, 5, step=5).astype(float)
    mean, variance = b.mean((0, 2, 3)), b.var((0, 2, 3))
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    pooled = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((4, 5))
    return {
        "fill": [np.full(1000, 0.75)], "copy from and to the host": [grid(1000)],
        "elementwise": [np.maximum(x, 0) * 2 + np.exp(x)],
        "reduction": [x.sum(1), x.max(0), grid(3, 5000, step=5).astype(float).mean(1)],
        "matrix product": [x @ grid(16, 8, step=5)], "softmax": [np.exp(x) / np.exp(x).sum(1, keepdims=True)],
        "convolution": [small],
        "convolution backwards": gradients(image, kernel, grid(*small.shape, step=3), 2),
        "convolution of a network's size": [convolved(grid(2, 64, 28, 28), grid(64, 64, 3, 3, step=5), 1)],
        "batch norm": [(b - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None], 0.1 * mean,
                       0.9 + 0.1 * variance],
        "pooling": [pooled, image.astype(float).mean((2, 3))], "sorting": [np.sort(np.arange(5000) * 2743 % 5003)]}


def test_stored_answers_are_numpys():
    computed = {stage: [number for array in arrays for number in summary(array)]
                for stage, arrays in by_numpy().items()}
    assert list(computed) == list(EXPECTED)
    for stage, numbers in computed.items():
        assert numbers == pytest.approx(EXPECTED[stage], rel=1e-6, abs=1e-6), stage


def test_summary_by_hand():
    assert summary(np.array([[1, -2], [3, -4]])) == [1, -2, 3, -4, 2.5]


def test_this_cpu_computes_right():
    stages = dict(compute("cpu"))
    assert list(stages) == list(EXPECTED)
    assert not [stage for stage, numbers in stages.items() if wrong(stage, numbers)]


@pytest.mark.parametrize("stage", EXPECTED)
def test_zeros_nans_and_small_errors_are_wrong(stage):
    known = np.array(EXPECTED[stage])
    assert not wrong(stage, known)
    assert wrong(stage, 0 * known) and wrong(stage, np.nan * known) and wrong(stage, known[:-1])
    for place in range(len(known)):
        assert wrong(stage, known + 0.002 * np.maximum(1, np.abs(known)) * (np.arange(len(known)) == place))
    assert not wrong(stage, known * (1 + 5e-4))          # what another order of summation may do


def test_inputs_survive_tensorfloat32():
    """Ten bits behind the first: a product in that format is exact, so that TF32 is never taken for an error."""
    bits = grid(4096, step=5).view(np.uint32)
    assert (bits & 0x1FFF == 0).all() and len(np.unique(grid(4096))) == 16
