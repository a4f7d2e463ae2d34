"""Noisy linear imputation (Rong et al., ICML 2022): fills removed pixels so that nothing shows where they were.

Every removed pixel becomes the mean of its eight neighbours, direct ones counting twice, all solved at once,
plus a little noise. A grey patch is itself a shape the network can read; this filling is not.
"""
from __future__ import annotations

import numpy as np


def impute(images: np.ndarray, removed: np.ndarray, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """Fill the removed pixels of images.

    Args:
        images: (B, C, H, W).
        removed: (B, H, W) bool.
        noise: standard deviation of what is added to filled pixels only, in units of the images.
        seed: of the noise.

    Returns:
        The images with the removed pixels filled, float32.
    """
    removed = np.broadcast_to(removed[:, None], images.shape)
    filled = _fill(images.astype(np.float32), removed)
    rough = np.random.default_rng(seed).normal(0, noise, images.shape)
    return np.where(removed, filled + rough, images).astype(np.float32)


def _fill(images: np.ndarray, removed: np.ndarray, tolerance: float = 1e-4) -> np.ndarray:
    """Conjugate gradients on (sum of weights) v - (weighted sum of neighbours) = 0, at removed pixels only.

    Smooth parts would take as many steps as a hole is wide, so they are first filled at half the resolution.
    Stops when no pixel misses its neighbours' mean by more than `tolerance` standard deviations of the image.
    """
    h, w = images.shape[2:]
    if min(h, w) >= 8:
        guess = np.repeat(np.repeat(_fill(*_halve(images, removed)), 2, 2), 2, 3)[:, :, :h, :w]
    else:
        kept = np.maximum((~removed).sum((2, 3), keepdims=True), 1)
        guess = np.where(removed, 0, images).sum((2, 3), keepdims=True) / kept
    v = np.where(removed, guess, images).astype(np.float32)
    weights = _neighbours(np.ones((1, 1, h, w), np.float32))
    limit = tolerance * images.std() / 3      # a corner has neighbours of total weight 5 / 12
    residual = np.where(removed, _neighbours(v) - weights * v, 0)
    direction, norm = residual, _dot(residual, residual)
    for _ in range(h + w):
        if np.abs(residual).max() <= limit:
            break
        change = np.where(removed, weights * direction - _neighbours(direction), 0)
        curvature = _dot(direction, change)
        step = norm / np.where(curvature > 0, curvature, np.inf)
        v = v + step * direction
        residual = residual - step * change
        previous, norm = norm, _dot(residual, residual)
        direction = residual + norm / np.where(previous > 0, previous, np.inf) * direction
    return v


def _halve(images: np.ndarray, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and removed pixels in blocks of 2 x 2: the mean of what is kept, removed where nothing is kept."""
    odd = ((0, 0), (0, 0), (0, images.shape[2] % 2), (0, images.shape[3] % 2))
    kept = np.pad(~removed, odd).astype(np.float32)
    total, count = (sum(a[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1))
                    for a in (np.pad(images, odd) * kept, kept))
    return total / np.maximum(count, 1), count == 0


def _neighbours(v: np.ndarray) -> np.ndarray:
    """Sum over the eight neighbours inside the image, weighted by 1/6 (direct) and 1/12 (diagonal)."""
    rows = np.pad(v, ((0, 0), (0, 0), (1, 1), (0, 0)))
    rows = rows[:, :, :-2] + 2 * v + rows[:, :, 2:]
    both = np.pad(rows, ((0, 0), (0, 0), (0, 0), (1, 1)))
    return (both[..., :-2] + 2 * rows + both[..., 2:] - 4 * v) / 12


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum((2, 3), keepdims=True)
