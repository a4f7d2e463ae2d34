"""Everything the toolbox changes on a model, as context managers that put it back.

Each restores what it found, not a default, and does so after an exception too. Nothing is changed
between calls: a toolbox that exists but is not running leaves no trace on its model.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paddle import nn


@contextmanager
def evaluating(model: nn.Layer) -> Iterator[None]:
    """Evaluation mode inside; afterwards every layer has the mode it had, mixed modes included."""
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    try:
        model.eval()
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


@contextmanager
def frozen(model: nn.Layer) -> Iterator[None]:
    """No parameter asks for a gradient inside; afterwards each does as before.

    With an input that asks for none either, autograd records nothing until a hook starts a new leaf:
    the layers upstream of a target layer cost what they cost under `no_grad`.
    """
    flags = [(parameter, parameter.stop_gradient) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.stop_gradient = True
        yield
    finally:
        for parameter, flag in flags:
            parameter.stop_gradient = flag


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Layer, Callable]]) -> Iterator[None]:
    """Pairs (layer, forward-post-hook), registered inside only."""
    handles = []
    try:
        for layer, hook in hooks:
            handles.append(layer.register_forward_post_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()
