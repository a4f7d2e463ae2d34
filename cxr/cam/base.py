"""What the methods share: validation, the one forward pass, smoothing, scaling.

A method is a subclass that turns a `Probe` into one signed map per layer and target (`_saliency`).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn

from cxr.cam import maths
from cxr.cam.layers import find_layers
from cxr.cam.probe import Probe
from cxr.cam.state import evaluating, frozen
from cxr.cam.targets import TargetChoice, Targets
from cxr.device import ensure
from cxr.errors import InputError


def as_images(x: paddle.Tensor | np.ndarray) -> paddle.Tensor:
    """Check a batch of images and take it out of any graph.

    Args:
        x: floats (B, C, H, W), at least one image.

    Returns:
        The images as a tensor, detached.

    Raises:
        InputError: another shape, no floats, or values that are not finite.
    """
    x = x.detach() if isinstance(x, paddle.Tensor) else paddle.to_tensor(np.asarray(x))
    if len(x.shape) != 4 or x.shape[0] == 0 or not x.is_floating_point():
        raise InputError(f"images must be floats (B, C, H, W), not {x.dtype} of shape {tuple(x.shape)}")
    if not bool(paddle.isfinite(x).all()):      # a ReLU would turn NaN into 0, and the map would look sound
        raise InputError("images must be finite; these contain NaN or infinity")
    return x


class BaseCAM:
    """A class activation map method, on any model.

        with GradCAM(model, "block.15") as cam:
            maps = cam(x)                       # (B, H, W) float32 in [0, 1], for each image's highest class
            maps = cam(x, targets="all")        # (B, K, H, W), from one forward pass of the backbone

    The model is touched during a call only: it runs in evaluation mode and gets back its modes, hooks and
    flags; no parameter receives a gradient. Calls work under `no_grad`, and with frozen parameters. The attributes
    below are of the last call; they are None before the first, and after `close`.

    Args:
        model: any `paddle.nn.Layer`; `cxr.cam.probe` says what it gains from methods `features` and `head`.
        target_layers: a layer, its dotted name, or a list of those, whose maps are averaged.
        reshape_transform: turns what the layer returns into (B, C, h, w), for transformers (`cxr.cam.transforms`).
        relu: whether negative evidence is dropped; None: as the method does by itself.

    Attributes:
        raw: the signed maps before ReLU and scaling, (B, h, w) or (B, K, h, w) at the layer's resolution; a list of
            those, in order, for a list of several layers; with `aug_smooth` the mean over the views.
        outputs: what `forward` returns for x.
        scores: what was explained.
        classes: (B, n) ints, None for a callable.

    Raises:
        InputError: a target layer is not in the model.
    """

    relu = True              # CAM as published keeps negative evidence; all others drop it
    stretch = True           # enlarging pulls the extremes in; scale once more afterwards, as the reference does
    differentiable = False   # whether the method asks for gradients

    def __init__(self, model: nn.Layer, target_layers: str | nn.Layer | Sequence[str | nn.Layer],
                 reshape_transform: Callable[[paddle.Tensor], paddle.Tensor] | None = None, *,
                 relu: bool | None = None):
        ensure()
        self.layers = find_layers(model, target_layers)
        self.several = isinstance(target_layers, (list, tuple)) and len(target_layers) > 1
        self.model = model
        self.reshape_transform = reshape_transform
        if relu is not None:
            self.relu = relu
        self.close()

    def close(self) -> None:
        """Let go of the last call's results; the model needs nothing undone."""
        self.raw = self.outputs = self.scores = self.classes = None

    def __enter__(self) -> BaseCAM:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def __call__(self, x: paddle.Tensor | np.ndarray, targets: TargetChoice = None, aug_smooth: bool = False,
                 eigen_smooth: bool = False, scale: str = "class") -> np.ndarray:
        """Explain a batch of images.

        Args:
            x: images (B, 3, H, W), as the model takes them.
            targets: None, the highest class of each image; an int, the same class for all; B ints; B x n ints;
                "all"; or a callable on the scores (N, K) that returns (N,).
            aug_smooth: take the mean over six views: the image and its mirror image, each times 0.9, 1 and 1.1. The
                classes are those of x itself (the reference lets each view choose its own highest class).
            eigen_smooth: take the first principal component of the weighted activations instead of their sum.
            scale: "class" stretches every map to [0, 1]; "shared" puts all maps of this call on one scale, so
                that weak evidence looks weak. A flat map becomes zeros.

        Returns:
            Maps (B, H, W) at the size of x, float32 in [0, 1]; (B, n, H, W) for B x n targets, (B, K, H, W) for "all".

        Raises:
            InputError: images, targets or scale do not fit; or a layer is not reached, returns no map, or has no
                influence on any of the scores.
        """
        if scale not in ("class", "shared"):
            raise InputError(f'scale must be "class" or "shared", not {scale!r}')
        x = as_images(x)
        self.close()
        chosen, raws, maps = None, [], []
        with evaluating(self.model), frozen(self.model):
            for mirrored, factor in VIEWS if aug_smooth else VIEWS[:1]:
                view = (x.flip(-1) if mirrored else x) * factor
                probe = Probe(self.model, self.layers, view, self.reshape_transform, self.differentiable)
                if chosen is None:
                    chosen = self._targets(targets, probe)
                    outputs, scores = probe.outputs, probe.scores
                raw = self._saliency(probe, chosen, eigen_smooth)
                raw = [layer[..., ::-1] if mirrored else layer for layer in raw]
                raws.append(raw)
                maps.append(self._scaled(raw, x.shape[2:], scale == "shared"))
        drop_axis = (lambda a: a) if chosen.many else (lambda a: a[:, 0])
        raws = [drop_axis(maths.average(views)) for views in zip(*raws)]
        self.raw = raws if self.several else raws[0]
        self.outputs, self.scores, self.classes = _detached(outputs), _detached(scores), chosen.classes
        return drop_axis(maths.average(maps))

    def _targets(self, targets: TargetChoice, probe: Probe) -> Targets:
        return Targets(targets, probe.scores)

    def _saliency(self, probe: Probe, targets: Targets, eigen: bool) -> list[np.ndarray]:
        """Per layer the signed maps (B, n, h, w), float32."""
        raise NotImplementedError

    def _scaled(self, raw: list[np.ndarray], size: Sequence[int], shared: bool) -> np.ndarray:
        """Signed maps per layer -> (B, n, H, W) in [0, 1]; each layer has an equal say."""
        for (name, _), layer in zip(self.layers, raw):
            if not np.isfinite(layer).all():
                raise InputError(f"the map of layer {name!r} is not finite: check the weights for NaN")
        rectified = [np.maximum(layer, 0) if self.relu else layer for layer in raw]
        sized = [maths.upsample(maths.rescale(layer, shared), size) for layer in rectified]
        merged = maths.average(sized)
        return maths.rescale(merged, shared) if self.stretch else merged

    def _check_influence(self, evidence: Sequence[Any]) -> None:
        """Refuse a layer without influence.

        Args:
            evidence: per layer its gradients or channel weights, or whether any of them is not zero.

        Raises:
            InputError: all of a layer's evidence is zero.
        """
        for (name, _), values in zip(self.layers, evidence):
            if not np.any(values):
                raise InputError(f"layer {name!r} has no influence on the scores asked for; choose another "
                                 "(in a ViT, one before the last attention) or, if the model ends in a "
                                 "sigmoid or softmax that may be saturated, let it offer logits")


VIEWS = [(mirrored, factor) for mirrored in (False, True) for factor in (1.0, 0.9, 1.1)]


def _detached(value: Any) -> Any:
    if isinstance(value, paddle.Tensor):
        return value.detach()
    return type(value)(_detached(v) for v in value) if type(value) in (list, tuple) else value
