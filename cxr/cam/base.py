"""What the methods share: validation, the one forward pass, smoothing, scaling.

A method is a subclass that turns a `Probe` into one signed map per layer and target (`_saliency`).
"""
from __future__ import annotations

import numpy as np
import paddle

from cxr.cam import maths
from cxr.cam.layers import find_layers
from cxr.cam.probe import Probe
from cxr.cam.state import evaluating, frozen
from cxr.cam.targets import Targets
from cxr.device import ensure
from cxr.errors import InputError


def as_images(x):
    """Tensor or array (B, C, H, W) of floats -> a tensor outside any graph; raises InputError."""
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

    model: any `paddle.nn.Layer`; what `features`/`head` methods on it gain is told in `cxr.cam.probe`.
    target_layers: a layer, its dotted name, or a list of those, whose maps are averaged.
    reshape_transform: what the layer returns -> (B, C, h, w), for transformers (`cxr.cam.transforms`).

    The model is touched during a call only: it runs in evaluation mode and gets back its modes, hooks and
    flags; no parameter receives a gradient. Calls work under `no_grad`, and with frozen parameters.

    After a call: `raw`, the signed maps before ReLU and scaling, (B, h, w) or (B, K, h, w) at the layer's
    resolution (several layers: a list of those, in order; `aug_smooth`: the mean over the views); `outputs`,
    what `forward` returns for x; `scores`, what was explained; `classes`, (B, n), None for a callable.
    """

    relu = True              # CAM as published keeps negative evidence; all others drop it
    stretch = True           # enlarging pulls the extremes in; scale once more afterwards, as the reference does
    differentiable = False   # whether the method asks for gradients

    def __init__(self, model, target_layers, reshape_transform=None, *, relu=None):
        ensure()
        self.layers = find_layers(model, target_layers)
        self.several = isinstance(target_layers, (list, tuple)) and len(target_layers) > 1
        self.model = model
        self.reshape_transform = reshape_transform
        if relu is not None:
            self.relu = relu
        self.close()

    def close(self):
        """Lets go of the last call's results; the model needs nothing undone."""
        self.raw = self.outputs = self.scores = self.classes = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __call__(self, x, targets=None, aug_smooth=False, eigen_smooth=False, scale="class"):
        """x (B, 3, H, W), as the model takes it -> maps, numpy float32 in [0, 1], at the size of x.

        targets: None, the highest class of each image; an int; B ints; B x n ints, giving (B, n, H, W);
            "all", giving (B, K, H, W); a callable on the scores (N, K) that returns (N,).
        aug_smooth: mean over six views: as it is and mirrored, each times 0.9, 1 and 1.1. The classes are
            those of x itself (the reference lets each view choose its own highest class).
        eigen_smooth: first principal component of the weighted activations instead of their sum.
        scale: "class" stretches every map to [0, 1]; "shared" puts all maps of this call on one scale, so
            that weak evidence looks weak. A flat map becomes zeros.

        Raises InputError if a layer is not reached, returns no map, or has no influence on any of the scores.
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

    def _targets(self, targets, probe):
        return Targets(targets, probe.scores)

    def _saliency(self, probe, targets, eigen):
        """Per layer the signed maps (B, n, h, w), float32."""
        raise NotImplementedError

    def _scaled(self, raw, size, shared):
        """Signed maps per layer -> (B, n, H, W) in [0, 1]; each layer has an equal say."""
        for (name, _), layer in zip(self.layers, raw):
            if not np.isfinite(layer).all():
                raise InputError(f"the map of layer {name!r} is not finite: check the weights for NaN")
        rectified = [np.maximum(layer, 0) if self.relu else layer for layer in raw]
        sized = [maths.upsample(maths.rescale(layer, shared), size) for layer in rectified]
        merged = maths.average(sized)
        return maths.rescale(merged, shared) if self.stretch else merged

    def _check_influence(self, evidence):
        """evidence: per layer an array of gradients or channel weights; all zero means no influence."""
        for (name, _), values in zip(self.layers, evidence):
            if not np.any(values):
                raise InputError(f"layer {name!r} has no influence on the scores asked for; choose another "
                                 "(in a ViT, one before the last attention) or, if the model ends in a "
                                 "sigmoid or softmax that may be saturated, let it offer logits")


VIEWS = [(mirrored, factor) for mirrored in (False, True) for factor in (1.0, 0.9, 1.1)]


def _detached(value):
    if isinstance(value, paddle.Tensor):
        return value.detach()
    return type(value)(_detached(v) for v in value) if type(value) in (list, tuple) else value
