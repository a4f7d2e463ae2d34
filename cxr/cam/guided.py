"""Guided backpropagation (Springenberg et al. 2015): the gradient at the pixels, through ReLUs that pass only
positive gradients, and its product with a class activation map."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from paddle import _C_ops, _legacy_C_ops, nn

from cxr.cam.base import as_images
from cxr.cam.probe import scores_from_images, to_numpy
from cxr.cam.state import evaluating, frozen, hooked
from cxr.cam.targets import TargetChoice, Targets
from cxr.errors import InputError


class GuidedBackprop:
    """Guided gradients of class scores at the pixels.

        with GuidedBackprop(model) as guided:
            gradients = guided(x)                           # (B, H, W, 3) float32, for the highest class
        picture = to_picture(times(gradients, maps)[0])     # the "guided CAM" of one image

    Catches every ReLU that dygraph runs, however it was written: `nn.ReLU`, `F.relu`, `BatchNorm(act='relu')`.
    It does so where they meet, in Paddle's own `relu` operators, which are exchanged for the time of the call
    (so no other thread should be using Paddle). A ReLU inside a larger compiled operator or a `to_static`
    function cannot be caught; if it belongs to a layer that says it has a ReLU, or if no ReLU at all is met,
    the call raises InputError rather than return plain gradients. Other activations (GELU, swish) keep their
    ordinary gradient. Leaves nothing changed, as the CAMs do.

    Args:
        model: any `paddle.nn.Layer`.

    Attributes:
        scores: what the last call explained; None before it and after the `with` block.

    Raises:
        InputError: the model is no layer.
    """

    def __init__(self, model: nn.Layer):
        if not isinstance(model, nn.Layer):
            raise InputError(f"the model must be a paddle.nn.Layer, not {type(model).__name__}")
        self.model = model
        self.scores = None

    def __enter__(self) -> GuidedBackprop:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.scores = None

    def __call__(self, x: paddle.Tensor | np.ndarray, targets: TargetChoice = None) -> np.ndarray:
        """Guided gradients of a batch of images; channels come last, as in a picture.

        Args:
            x: images (B, C, H, W).
            targets: as for `BaseCAM`.

        Returns:
            (B, H, W, C) float32; (B, n, H, W, C) for "all" or B x n targets.

        Raises:
            InputError: images or targets do not fit, the score does not depend on the image in a differentiable way,
                or a ReLU cannot be reached.
        """
        x = as_images(x)
        x.stop_gradient = False
        with evaluating(self.model), frozen(self.model), guided_relus(self.model), paddle.enable_grad():
            scores = scores_from_images(self.model, x)
            chosen = Targets(targets, scores)
            gradients = []
            for j in range(chosen.n):
                score = chosen.pick(scores, j).sum()
                gradient = None if score.stop_gradient else paddle.grad(
                    score, x, retain_graph=j < chosen.n - 1, allow_unused=True)[0]
                if gradient is None:
                    raise InputError("the score does not depend on the image in a differentiable way")
                gradients.append(to_numpy(gradient).transpose(0, 2, 3, 1))
        self.scores = scores.detach()
        return np.stack(gradients, 1) if chosen.many else gradients[0]


def times(gradients: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Guided gradients (..., H, W, C) times maps (..., H, W): as sharp as the gradients, as selective as the maps."""
    return gradients * maps[..., None]


def to_picture(gradients: np.ndarray) -> np.ndarray:
    """(H, W, C) to uint8: the mean is shown as grey, one standard deviation as a tenth of the range."""
    standard = (gradients - gradients.mean()) / (gradients.std() + 1e-5)
    return np.uint8(255 * np.clip(0.5 + 0.1 * standard, 0, 1))


@contextmanager
def guided_relus(model: nn.Layer) -> Iterator[None]:
    """Inside, the gradient that arrives at the output of any ReLU is rectified before it goes on.

    The operator's own backward then masks it by the input, so that both must be positive.

    Args:
        model: the one that runs inside.

    Raises:
        InputError: on leaving, if no ReLU was met, or one that a layer of the model has was not.
    """
    met = 0

    def guide(operator: Callable) -> Callable:
        def relu(x: paddle.Tensor, *arguments: Any, **options: Any) -> paddle.Tensor:
            nonlocal met
            met += 1
            y = operator(x, *arguments, **options)
            if not y.stop_gradient:
                y.register_hook(rectify)
            return y
        return relu

    rectify = _C_ops.relu
    missed, before = [], {}

    def enter(layer: nn.Layer, inputs: tuple) -> None:
        before[id(layer)] = met

    def leave(layer: nn.Layer, inputs: tuple, output: Any) -> None:
        if met == before[id(layer)]:
            missed.append(type(layer).__name__)

    claimed = [layer for layer in model.sublayers(include_self=True)
               if isinstance(layer, nn.ReLU) or getattr(layer, "_act", None) == "relu"]
    operators = [(module, name, getattr(module, name))
                 for module in (_C_ops, _legacy_C_ops) for name in ("relu", "relu_") if hasattr(module, name)]
    entries = [layer.register_forward_pre_hook(enter) for layer in claimed]
    try:
        for module, name, operator in operators:
            setattr(module, name, guide(operator))
        with hooked([(layer, leave) for layer in claimed]):
            yield
    finally:
        for module, name, operator in operators:
            setattr(module, name, operator)
        for entry in entries:
            entry.remove()
    if missed or not met:
        raise InputError(f"guided backpropagation cannot reach the ReLU inside {missed[0]}" if missed else
                         "guided backpropagation found no ReLU in the model's forward pass")
