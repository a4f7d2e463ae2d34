"""Target layers: by name or by object, and the list a person chooses from."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import paddle
from paddle import nn

from cxr.cam.state import evaluating, hooked
from cxr.errors import InputError


def find_layers(model: nn.Layer, targets: str | nn.Layer | Sequence[str | nn.Layer]) -> list[tuple[str, nn.Layer]]:
    """Find one target layer or several in a model.

    Args:
        model: any `paddle.nn.Layer`.
        targets: a dotted name as `model.named_sublayers()` gives it ("block.15", "densenet121.batch_norm"), the
            layer object itself, or a list of those.

    Returns:
        (name, layer) of each target, in the order given.

    Raises:
        InputError: a target is not in the model (the sentence has close names), or there is none.
    """
    if not isinstance(model, nn.Layer):
        raise InputError(f"the model must be a paddle.nn.Layer, not {type(model).__name__}")
    several = isinstance(targets, (list, tuple))
    if several and not targets:
        raise InputError("target_layers is empty: name at least one layer")
    return [_find(model, target) for target in (targets if several else [targets])]


def _find(model: nn.Layer, target: str | nn.Layer) -> tuple[str, nn.Layer]:
    layers = dict(model.named_sublayers())
    if isinstance(target, nn.Layer):
        for name, layer in layers.items():
            if layer is target:
                return name, layer
        raise InputError(f"the target {type(target).__name__} is no sublayer of {type(model).__name__}")
    if not isinstance(target, str):
        raise InputError(f"a target layer is a Layer or its dotted name, not {type(target).__name__}")
    if target in layers:
        return target, layers[target]
    ending = [name for name in layers if name.endswith("." + target)]
    close = (ending + get_close_matches(target, layers, n=5, cutoff=0.4))[:5] or list(layers)[-5:]
    raise InputError(f"{type(model).__name__} has no layer {target!r}; close names: {', '.join(close)}")


def list_layers(model: nn.Layer, input_shape: Sequence[int]) -> list[tuple[str, str, tuple[int, ...] | None]]:
    """List every sublayer with the shape of its output, by one forward pass of zeros.

    Args:
        model: any `paddle.nn.Layer`.
        input_shape: (3, H, W) or (B, 3, H, W).

    Returns:
        (name, type, output shape) of each, in the model's order. The shape is that of the layer's last call; it is
        None for a layer that forward does not reach or that returns no single tensor: such a layer is no target.
    """
    layers = list(model.named_sublayers())
    shapes = {}

    def keep(name: str) -> Callable:
        def hook(layer: nn.Layer, inputs: tuple, output: Any) -> None:
            shapes[name] = tuple(output.shape) if isinstance(output, paddle.Tensor) else None
        return hook

    shape = list(input_shape)
    with evaluating(model), hooked([(layer, keep(name)) for name, layer in layers]), paddle.no_grad():
        model(paddle.zeros(shape if len(shape) == 4 else [1, *shape]))
    return [(name, type(layer).__name__, shapes.get(name)) for name, layer in layers]
