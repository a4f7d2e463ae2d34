"""The methods as pure functions of numpy arrays, and what turns their result into a picture.

`activations` and `gradients` (of a score per image) are (B, C, h, w) float32; the map is (B, h, w),
signed, neither rectified nor scaled. `eigen=True` is the published `eigen_smooth`: the first principal
component of the weighted activations in place of their sum.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def combine(activations: np.ndarray, weights: np.ndarray, eigen: bool = False) -> np.ndarray:
    """Weigh activations and sum them over the channels.

    Args:
        activations: (B, C, h, w).
        weights: any shape that broadcasts against the activations.
        eigen: take the first principal component in place of the sum.

    Returns:
        Maps (B, h, w).
    """
    b, c, h, w = activations.shape
    if weights.shape[1:] == (c, 1, 1) and not eigen:       # a matrix product is ten times faster
        return (weights.reshape(-1, 1, c) @ activations.reshape(b, c, h * w)).reshape(b, h, w)
    weighted = weights * activations
    return first_component(weighted) if eigen else weighted.sum(1)


def gradcam(activations: np.ndarray, gradients: np.ndarray, eigen: bool = False) -> np.ndarray:
    """Selvaraju et al. 2017: a channel's weight is its mean gradient."""
    return combine(activations, gradients.mean((2, 3), keepdims=True), eigen)


def gradcam_plus_plus(activations: np.ndarray, gradients: np.ndarray, eigen: bool = False,
                      eps: float = 1e-6) -> np.ndarray:
    """Chattopadhay et al. 2018, eq. 19: positive gradients, weighted by g^2 / (2 g^2 + sum(A) g^3 + eps)."""
    squared = gradients ** 2
    denominator = 2 * squared + activations.sum((2, 3), keepdims=True) * squared * gradients + eps
    alpha = np.divide(squared, denominator, out=np.zeros_like(denominator), where=denominator != 0)
    return combine(activations, (np.maximum(gradients, 0) * alpha).sum((2, 3), keepdims=True), eigen)


def xgradcam(activations: np.ndarray, gradients: np.ndarray, eigen: bool = False, eps: float = 1e-7) -> np.ndarray:
    """Fu et al. 2020: a channel's weight is the mean of its gradient, weighted by its activation."""
    total = activations.sum((2, 3), keepdims=True) + eps
    weights = np.divide((gradients * activations).sum((2, 3), keepdims=True), total,
                        out=np.zeros_like(total), where=total != 0)
    return combine(activations, weights, eigen)


def layercam(activations: np.ndarray, gradients: np.ndarray, eigen: bool = False) -> np.ndarray:
    """Jiang et al. 2021: every position's weight is its positive gradient."""
    return combine(activations, np.maximum(gradients, 0), eigen)


def eigengradcam(activations: np.ndarray, gradients: np.ndarray, eigen: bool = True) -> np.ndarray:
    """First principal component of gradient times activation, whatever `eigen` says."""
    return combine(activations, gradients, eigen=True)


def eigencam(activations: np.ndarray) -> np.ndarray:
    """Muhammad and Yeasin 2020: first principal component of the activations; knows no class."""
    return first_component(activations)


def first_component(activations: np.ndarray) -> np.ndarray:
    """Project positions on the first principal axis of the channels.

    A principal axis is only defined up to its sign. Here the sign is chosen so that the map agrees with (has a
    non-negative product with) the mean over channels; a plain SVD leaves it to chance.

    Args:
        activations: (B, C, h, w).

    Returns:
        Maps (B, h, w), float32.
    """
    batch, channels, h, w = activations.shape
    x = activations.reshape(batch, channels, h * w).transpose(0, 2, 1).astype(np.float64)
    mean = x.mean(2)
    x = x - x.mean(1, keepdims=True)
    # Of the two Gram matrices the smaller one: 49 x 49 for the last layer of a DenseNet, not 1024 x 1024.
    if h * w <= channels:
        gram = x @ x.transpose(0, 2, 1)
        axis = _leading_axis(gram)
        projection = (axis * np.sqrt(axis.transpose(0, 2, 1) @ gram @ axis))[..., 0]
    else:
        projection = (x @ _leading_axis(x.transpose(0, 2, 1) @ x))[..., 0]
    sign = np.where((projection * mean).sum(1, keepdims=True) < 0, -1, 1)
    return (sign * projection).reshape(batch, h, w).astype(np.float32)


def _leading_axis(gram: np.ndarray) -> np.ndarray:
    """(B, n, n) symmetric, non-negative -> (B, n, 1) unit eigenvectors of the largest eigenvalues; 0 for 0.

    By repeated squaring: of unit trace, a matrix has a square of unit trace once a single axis is left. This
    is a handful of small products, where LAPACK's eigh and svd can take longer than the network itself.
    """
    power = gram
    for _ in range(30):
        trace = np.trace(power, axis1=1, axis2=2)[:, None, None]
        power = power / np.where(trace > 0, trace, 1)
        power = power @ power
        left = np.trace(power, axis1=1, axis2=2)
        if (left[left > 0] > 1 - 1e-12).all():
            break
    longest = np.diagonal(power, axis1=1, axis2=2).argmax(1)
    axis = np.take_along_axis(power, longest[:, None, None], 2)
    length = np.linalg.norm(axis, axis=1, keepdims=True)
    return axis / np.where(length > 0, length, 1)


def rescale(maps: np.ndarray, shared: bool = False) -> np.ndarray:
    """Stretch maps to [0, 1].

    A flat map becomes zeros. Flat is a range within a millionth of the largest magnitude: below that
    it is rounding, and dividing by it would paint noise in full colour.

    Args:
        maps: (..., h, w).
        shared: by the range of all maps together, in place of the range of each.

    Returns:
        The same shape, float32.
    """
    axes = None if shared else (-2, -1)
    low = maps.min(axis=axes, keepdims=True)
    span = maps.max(axis=axes, keepdims=True) - low
    flat = span <= 1e-6 * np.abs(maps).max(axis=axes, keepdims=True)
    return np.where(flat, 0, (maps - low) / np.where(flat, 1, span)).astype(np.float32)


def average(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of arrays of equal shape; a single array is returned as it is, not copied (a batch's maps are some 25 MB).
    """
    return arrays[0] if len(arrays) == 1 else np.mean(arrays, 0)


def upsample(maps: np.ndarray, size: Sequence[int], align_corners: bool = False) -> np.ndarray:
    """Enlarge maps, bilinear, as two matrix products: these take a tenth of the time of Paddle's kernel.

    Args:
        maps: (B, n, h, w).
        size: (H, W) of the result.
        align_corners: corner pixels keep their places; by default pixel centres do, as in `cv2.resize`.

    Returns:
        (B, n, H, W), float32.
    """
    rows, columns = (_interpolation(old, new, align_corners) for old, new in zip(maps.shape[2:], size))
    return rows @ (np.asarray(maps, np.float32) @ columns.T)


def _interpolation(old: int, new: int, align_corners: bool) -> np.ndarray:
    """(new, old): how much each of the `old` values counts for each of the `new` ones."""
    if align_corners:
        places = np.linspace(0, old - 1, new)
    else:
        places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old))).astype(np.float32)
