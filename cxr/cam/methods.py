"""The nine methods. Each is what it does with a `Probe`; the mathematics are in `maths`."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import paddle

from cxr.cam import maths
from cxr.cam.base import BaseCAM
from cxr.cam.probe import Probe, to_numpy
from cxr.cam.targets import TargetChoice, Targets
from cxr.errors import InputError
from cxr.utils.progress import progress


class _GradientCAM(BaseCAM):
    """Methods that are a function (activations, gradients, eigen) -> map."""

    differentiable = True
    formula: Callable[[np.ndarray, np.ndarray, bool], np.ndarray]

    def _saliency(self, probe: Probe, targets: Targets, eigen: bool) -> list[np.ndarray]:
        maps = []
        influence = np.zeros(len(self.layers), bool)
        for gradients in _gradients(probe, targets):
            influence |= [bool(g.any()) for g in gradients]
            maps.append([self.formula(a, g, eigen) for a, g in zip(probe.maps, gradients)])
        self._check_influence(influence)
        return [np.stack(layer, 1) for layer in zip(*maps)]


def _gradients(probe: Probe, targets: Targets) -> Iterator[list[np.ndarray]]:
    """Target after target, the gradients per layer: by closed form where there is one, else backwards."""
    linear = [probe.linear_weights(i) for i in range(len(probe.maps))]
    closed = targets.classes is not None and all(weights is not None for weights in linear)
    for j in range(targets.n):
        if closed:
            # d score / d A[c, y, x] of a linear layer on the mean is W[c, k] / (h w), everywhere.
            yield [np.broadcast_to(w.T[targets.classes[:, j]][:, :, None, None] / a[0, 0].size, a.shape)
                   for w, a in zip(linear, probe.maps)]
        else:
            with paddle.enable_grad():
                score = targets.pick(probe.scores, j).sum()
            yield probe.gradients(score, retain=j < targets.n - 1)


class GradCAM(_GradientCAM):
    """Selvaraju et al., ICCV 2017: channels weighted by their mean gradient."""

    formula = staticmethod(maths.gradcam)


class GradCAMPlusPlus(_GradientCAM):
    """Chattopadhay et al., WACV 2018.

    Args:
        *args: as for `BaseCAM`.
        eps: keeps eq. 19 from 0 / 0; 1e-6 as in the reference. Gradients behind a mean over h x w positions are of
            the order of 1 / (h w), and where their squares fall to 1e-6 it is eps that shapes the map; `eps=0` gives
            the equation itself (0 / 0 is taken as 0).
        **options: as for `BaseCAM`.
    """

    def __init__(self, *args: Any, eps: float = 1e-6, **options: Any):
        super().__init__(*args, **options)
        self.formula = partial(maths.gradcam_plus_plus, eps=eps)


class XGradCAM(_GradientCAM):
    """Fu et al., BMVC 2020: a channel's weight is the mean of its gradient, weighted by its activation."""

    formula = staticmethod(maths.xgradcam)


class LayerCAM(_GradientCAM):
    """Jiang et al., TIP 2021: every position weighted by its positive gradient; good for shallow layers."""

    formula = staticmethod(maths.layercam)


class EigenGradCAM(_GradientCAM):
    """First principal component of gradient times activation; its sign agrees with their mean (`maths`)."""

    formula = staticmethod(maths.eigengradcam)


class EigenCAM(BaseCAM):
    """Muhammad and Yeasin, IJCNN 2020: first principal component of the activations, whatever the class.

    Its sign agrees with the mean activation (`maths.first_component`); the reference leaves it to chance.
    """

    def _targets(self, targets: TargetChoice, probe: Probe) -> Targets:
        # No class is needed, so a model that gives none (a detector) is welcome.
        return Targets(lambda scores: scores, None) if targets is None else super()._targets(targets, probe)

    def _saliency(self, probe: Probe, targets: Targets, eigen: bool) -> list[np.ndarray]:
        maps = [maths.eigencam(activations) for activations in probe.maps]
        return [np.repeat(map_[:, None], targets.n, 1) for map_ in maps]


class _WeightCAM(BaseCAM):
    """Methods that weigh whole channels without a gradient."""

    def _saliency(self, probe: Probe, targets: Targets, eigen: bool) -> list[np.ndarray]:
        weights = [self._weights(probe, i, targets) for i in range(len(self.layers))]
        self._check_influence(weights)
        return [np.stack([maths.combine(a, w[:, j, :, None, None], eigen) for j in range(targets.n)], 1)
                for a, w in zip(probe.maps, weights)]

    def _weights(self, probe: Probe, i: int, targets: Targets) -> np.ndarray:
        """(B, n, C) channel weights of layer i."""
        raise NotImplementedError


class CAM(_WeightCAM):
    """Zhou et al., CVPR 2016: the weights of the linear layer, for a model that ends in mean + linear.

    As published, and unlike the other methods, the map keeps negative evidence (`relu=True` drops it), and is
    scaled before it is enlarged and not again afterwards. A call raises InputError if the weights do not fit.

    Args:
        *args: as for `BaseCAM`.
        weights: (C, K) as Paddle stores them; needed for a model that has no `classifier`. With `classifier` the
            call checks that the scores are what this layer makes of the mean activations.
        **options: as for `BaseCAM`.
    """

    relu = stretch = False

    def __init__(self, *args: Any, weights: np.ndarray | None = None, **options: Any):
        super().__init__(*args, **options)
        self.weights = None if weights is None else np.asarray(weights, np.float32)

    def _weights(self, probe: Probe, i: int, targets: Targets) -> np.ndarray:
        weights = probe.linear_weights(i) if self.weights is None else self.weights
        name, channels = self.layers[i][0], probe.maps[i].shape[1]
        if weights is None:
            raise InputError("CAM needs scores that are a linear layer, named `classifier`, on the mean of "
                             f"layer {name!r}; this model's are not; use GradCAM, or pass weights=[C, K]")
        if targets.classes is None:
            raise InputError("CAM explains classes; targets cannot be a callable")
        if weights.ndim != 2 or weights.shape[0] != channels or weights.shape[1] <= targets.classes.max():
            raise InputError(f"CAM weights {weights.shape} do not fit: layer {name!r} has {channels} "
                             f"channels, and class {targets.classes.max()} is wanted")
        return weights.T[targets.classes]


class ScoreCAM(_WeightCAM):
    """Wang et al., CVPR workshops 2020: a channel's weight is the score of the image seen through it.

    Takes C forward passes per image, whatever the number of classes.

    Args:
        *args: as for `BaseCAM`.
        batch_size: images at a time.
        top_k: try only so many channels, those that vary most over the image (the others weigh nothing); None: all.
        progress: show a bar.
        align_corners: how the masks are sized; the reference aligns corners, so its masks lie up to half a cell
            off the maps that they make. False puts each mask where its map is.
        **options: as for `BaseCAM`.

    Raises:
        InputError: `batch_size` or `top_k` is less than 1.
    """

    def __init__(self, *args: Any, batch_size: int = 32, top_k: int | None = None, progress: bool = False,
                 align_corners: bool = True, **options: Any):
        super().__init__(*args, **options)
        if batch_size < 1 or (top_k is not None and top_k < 1):
            raise InputError(f"batch_size and top_k must be at least 1, not {batch_size} and {top_k}")
        self.batch_size, self.top_k = batch_size, top_k
        self.progress, self.align_corners = progress, align_corners

    def _weights(self, probe: Probe, i: int, targets: Targets) -> np.ndarray:
        batch, channels, *_ = probe.maps[i].shape
        scores = np.full((batch, targets.n, channels), -np.inf, np.float32)
        kept = np.argsort(-probe.maps[i].std((2, 3)), axis=1, kind="stable")[:, :self.top_k]
        for image, chunk in _chunks(kept, self.batch_size, self.progress and type(self).__name__):
            with paddle.no_grad():
                masked = self._through(probe.x[image:image + 1], probe.maps[i][image, chunk])
                result = probe.scores_of(masked)
            for j in range(targets.n):
                scores[image, j, chunk] = to_numpy(targets.pick(result, j, image))
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    def _through(self, x: paddle.Tensor, channels: np.ndarray) -> paddle.Tensor:
        """(n, 3, H, W): the image (1, 3, H, W) times each of the channels (n, h, w), enlarged and scaled to [0, 1]."""
        masks = maths.rescale(maths.upsample(channels[:, None], x.shape[2:], self.align_corners))
        return x * paddle.to_tensor(masks).astype(x.dtype)


class AblationCAM(_WeightCAM):
    """Ramaswamy and Desai, WACV 2020: a channel's weight is how much the score falls without it.

    With mean + linear scores this is W[c, k] (mean(A_c) - baseline), and nothing is run; with a split model
    the head alone is run, otherwise the whole model, C times per image, for all classes at once.

    Args:
        *args: as for `BaseCAM`.
        batch_size: channels at a time.
        progress: show a bar.
        baseline: the value an absent channel takes. 0 as in the paper; the reference takes 0 only where the
            layer's least activation is 0, and otherwise ten million below that, far outside the network's range.
        relative: divide the fall by the score, as the paper and the reference do. Not the default, since a
            negative score turns the map upside down; where it is positive the scaled map is the same.
        **options: as for `BaseCAM`.

    Raises:
        InputError: `batch_size` is less than 1.
    """

    def __init__(self, *args: Any, batch_size: int = 32, progress: bool = False, baseline: float = 0.0,
                 relative: bool = False, **options: Any):
        super().__init__(*args, **options)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size, self.progress = batch_size, progress
        self.baseline, self.relative = baseline, relative

    def _weights(self, probe: Probe, i: int, targets: Targets) -> np.ndarray:
        activations = probe.maps[i]
        scores = np.stack([to_numpy(targets.pick(probe.scores, j)) for j in range(targets.n)], 1)
        linear = probe.linear_weights(i) if targets.classes is not None else None
        if linear is not None:
            drop = linear.T[targets.classes] * (activations.mean((2, 3)) - self.baseline)[:, None]
        else:
            drop = np.zeros((*scores.shape, activations.shape[1]), np.float32)
            # A channel that already is at the baseline changes nothing.
            live = [np.flatnonzero((channels != self.baseline).any((1, 2))) for channels in activations]
            for image, chunk in _chunks(live, self.batch_size, self.progress and type(self).__name__):
                result = probe.scores_without(i, image, chunk, self.baseline)
                for j in range(targets.n):
                    drop[image, j, chunk] = scores[image, j] - to_numpy(targets.pick(result, j, image))
        return drop / scores[:, :, None] if self.relative else drop


def _chunks(channels: Iterable[Sequence[int]], size: int, title: str | bool) -> Iterable[tuple[int, Sequence[int]]]:
    """(image, up to `size` channels) for all channels of all images; with a bar if there is a title."""
    chunks = [(image, row[start:start + size])
              for image, row in enumerate(channels) for start in range(0, len(row), size)]
    return progress(chunks, desc=title, unit="batch") if title else chunks
