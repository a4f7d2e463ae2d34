"""Target layers: by name or by object, and the list a person chooses from."""
from __future__ import annotations

from difflib import get_close_matches

import paddle
from paddle import nn

from cxr.cam.state import evaluating, hooked
from cxr.errors import InputError


def find_layers(model, targets):
    """One target layer or several -> list of (name, layer), in the order given.

    A target is a dotted name as `model.named_sublayers()` gives it ("block.15", "densenet121.batch_norm")
    or the layer object itself. Raises InputError, with close names, for what is not in the model.
    """
    if not isinstance(model, nn.Layer):
        raise InputError(f"the model must be a paddle.nn.Layer, not {type(model).__name__}")
    several = isinstance(targets, (list, tuple))
    if several and not targets:
        raise InputError("target_layers is empty: name at least one layer")
    return [_find(model, target) for target in (targets if several else [targets])]


def _find(model, target):
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


def list_layers(model, input_shape):
    """One forward of zeros -> [(name, type, output shape)] for every sublayer, in the model's order.

    input_shape: (3, H, W) or (B, 3, H, W). The shape is that of the layer's last call; it is None for a
    layer that forward does not reach or that returns no single tensor, and such a layer is no target.
    """
    layers = list(model.named_sublayers())
    shapes = {}

    def keep(name):
        def hook(layer, inputs, output):
            shapes[name] = tuple(output.shape) if isinstance(output, paddle.Tensor) else None
        return hook

    shape = list(input_shape)
    with evaluating(model), hooked([(layer, keep(name)) for name, layer in layers]), paddle.no_grad():
        model(paddle.zeros(shape if len(shape) == 4 else [1, *shape]))
    return [(name, type(layer).__name__, shapes.get(name)) for name, layer in layers]
