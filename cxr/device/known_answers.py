"""Small computations whose results are known: what a device must get right before anything is believed of it.

`main` prints one line of JSON for each stage as it goes, in a separate process (`cxr.device.trial`), because a GPU
that Paddle holds no code for may abort or hang. `wrong` compares them with stored numbers, which were computed with
NumPy (`tests/test_device_answers.py` computes them again).
"""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:                                # numbers are judged without Paddle
    from paddle import Tensor

TOLERANCE = 1e-3                                 # relative to the larger of 1 and the number
# All inputs are eighths between -1 and 7/8, which TensorFloat-32 holds exactly: a difference is no rounding.
EXPECTED: dict[str, tuple[float, ...]] = {
    "fill": (0.75, 0.75, 0.75, 0.75, 0.75),
    "copy from and to the host": (-1, -0.125, 0.75, 0.5, 0.499875),
    "elementwise": (0.3678794, 0.8824969, 3.617, 0.3678794, 1.470866),
    "reduction": (
        0.625, -3.75, -3.75, 0.625, 2.1875, 0.125, 0.75, 0.75, 0.125, 0.5, -0.089075, -0.08995, -0.08875,
        -0.08875, 0.08925833),
    "matrix product": (0.359375, 1, 0.96875, -0.1875, 1.239746),
    "softmax": (0.01872095, 0.04490923, 0.1077316, 0.01872095, 0.0625),
    "convolution": (0.578125, -1.296875, -1.984375, -0.25, 1.297734),
    "convolution backwards": (
        0.65625, -0.0625, -1.140625, -0.140625, 0.7902521, 0.625, 1.125, 1.125, -3.015625, 1.844473),
    "convolution of a network's size": (13.54688, 11.5, 9.921875, -3.890625, 6.777154),
    "batch norm": (
        -1.598463, -0.4806568, 0.6371497, 0.6441163, 0.8723062, -0.010625, -0.004, -0.01125, -0.01125,
        0.008625, 0.9312617, 0.93934, 0.9316719, 0.9316719, 0.9340912),
    "pooling": (0.25, 0.75, 0.75, -0.25, 0.62, -0.1219136, -0.07561728, -0.05401235, -0.1080247, 0.09542181),
    "sorting": (0, 1, 2, 5002, 2500.789),
}


def grid(*shape: int, step: int = 7) -> np.ndarray:
    """Eighths from -1 to 7/8 in a fixed disorder, float32."""
    index = np.arange(int(np.prod(shape)))
    return (((index * step + index * index // 7) % 16 - 8) / 8).astype("float32").reshape(shape)


def compute(device: str) -> Iterator[tuple[str, list[float]]]:
    """`(stage, numbers)` of every stage in turn, computed on `device` by Paddle."""
    import paddle
    from paddle.nn import functional as F

    paddle.set_device(device)

    def numbers(*tensors: Tensor) -> list[float]:
        """The `summary` of each."""
        return [number for tensor in tensors for number in summary(tensor.numpy())]

    yield "fill", numbers(paddle.full([1000], 0.75))
    yield "copy from and to the host", numbers(paddle.to_tensor(grid(1000)))
    x = paddle.to_tensor(grid(4, 16))
    yield "elementwise", numbers(F.relu(x) * 2 + x.exp())
    yield "reduction", numbers(x.sum(axis=1), x.max(axis=0), paddle.to_tensor(grid(3, 5000, step=5)).mean(axis=1))
    yield "matrix product", numbers(paddle.matmul(x, paddle.to_tensor(grid(16, 8, step=5))))
    yield "softmax", numbers(F.softmax(x, axis=1))
    image = paddle.to_tensor(grid(2, 3, 9, 9), stop_gradient=False)
    kernel = paddle.to_tensor(grid(4, 3, 3, 3, step=5), stop_gradient=False)
    convolved = F.conv2d(image, kernel, stride=2, padding=1)
    yield "convolution", numbers(convolved)
    (convolved * paddle.to_tensor(grid(*convolved.shape, step=3))).sum().backward()
    yield "convolution backwards", numbers(image.grad, kernel.grad)
    yield "convolution of a network's size", numbers(F.conv2d(paddle.to_tensor(grid(2, 64, 28, 28)),
                                                              paddle.to_tensor(grid(64, 64, 3, 3, step=5)), padding=1))
    mean, variance = paddle.zeros([3]), paddle.ones([3])
    normed = F.batch_norm(paddle.to_tensor(grid(4, 3, 5, 5, step=5)), mean, variance, paddle.ones([3]),
                          paddle.zeros([3]), training=True)
    yield "batch norm", numbers(normed, mean, variance)
    yield "pooling", numbers(F.max_pool2d(image, 3, 2, 1), F.adaptive_avg_pool2d(image, 1))
    # Sorting goes through another library (thrust), which aborts where everything else is silently zero.
    yield "sorting", numbers(paddle.sort(paddle.to_tensor(np.arange(5000) * 2743 % 5003).astype("float32")))


def summary(array: np.ndarray) -> list[float]:
    """The first three numbers, the last, and the mean of absolute values of an array."""
    flat = np.asarray(array, np.float64).ravel()
    return [*flat[:3].tolist(), float(flat[-1]), float(np.abs(flat).mean())]


def wrong(stage: str, got: Sequence[float]) -> bool:
    """Whether the numbers of a stage are not the known ones.

    Args:
        stage: a key of `EXPECTED`.
        got: what a device computed.
    """
    known = np.array(EXPECTED[stage])
    got = np.array(got, np.float64)
    return got.shape != known.shape or not (np.abs(got - known) <= TOLERANCE * np.maximum(1, np.abs(known))).all()


def main(device: str) -> None:
    """Print every stage of `device` (Paddle's name) as JSON, one on each line."""
    from cxr.runtime import load_paddle

    load_paddle()
    for stage, numbers in compute(device):
        print(json.dumps({"stage": stage, "numbers": numbers}), flush=True)
