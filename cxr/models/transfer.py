"""Transfer learning: a backbone trained elsewhere, frozen, with a new head.

The head is the model's `classifier`, the linear layer behind the global average pooling; everything else is the
backbone.
"""
from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.weights.paddle_files import check_state, fill, read_weights

if TYPE_CHECKING:                                  # only who has a model needs Paddle
    from paddle import Tensor
    from paddle.nn import Layer


def load_backbone(model: Layer, path: str | os.PathLike) -> None:
    """Fill all of `model` but its classifier from the file `path`, all of it or nothing.

    Args:
        model: of ours.
        path: a file with the keys of our own models, with or without the prefix of the backbone's own layer
            (`densenet121.`), with or without a classifier of any number of classes, which is left out.

    Raises:
        InputError: the file cannot be read, or its weights do not fit.
    """
    path = Path(path)
    state, _ = read_weights(path)
    weights = model.state_dict()
    head = _head_keys(model)
    shapes = {key: tuple(value.shape) for key, value in weights.items() if key not in head}
    prefix = os.path.commonprefix(list(weights)).rpartition(".")[0]
    if prefix and not any(key.startswith(prefix + ".") for key in state):
        state = {f"{prefix}.{key}": value for key, value in state.items()}
    extra = [key for key in state if key not in shapes]
    if sorted(state[key].ndim for key in extra) in ([1], [2], [1, 2]):           # a linear layer
        state = {key: value for key, value in state.items() if key in shapes}
    check_state(state, shapes, path)
    fill(model, {**state, **{key: weights[key].numpy() for key in head}}, path)


def _head_keys(model: Layer) -> set[str]:
    owned = {id(parameter) for parameter in model.classifier.parameters()}
    return {key for key, value in model.state_dict().items() if id(value) in owned}


def freeze_backbone(model: Layer) -> None:
    """Let training change the classifier alone: neither weights nor running statistics of anything else."""
    for parameter in model.parameters():
        parameter.stop_gradient = True
    for parameter in model.classifier.parameters():
        parameter.stop_gradient = False


def is_frozen(model: Layer) -> bool:
    """Whether `freeze_backbone` was called on the model."""
    if not hasattr(model, "classifier"):
        return False
    head = {id(parameter) for parameter in model.classifier.parameters()}
    return all(parameter.stop_gradient for parameter in model.parameters() if id(parameter) not in head)


def trainable(model: Layer) -> list[Tensor]:
    """Parameters that training changes. (Paddle lists the running statistics of batch norms as parameters too.)"""
    return [parameter for parameter in model.parameters() if not parameter.stop_gradient]


def train_mode(model: Layer) -> None:
    """Training mode for what is trained: batch norms of a frozen backbone go on using their statistics."""
    model.eval()
    (model.classifier if is_frozen(model) else model).train()


def running_statistics(model: Layer) -> list[Tensor]:
    """Means and variances of the batch norms in training mode."""
    return [getattr(layer, name) for layer in model.sublayers(include_self=True) if layer.training
            for name in ("_mean", "_variance") if hasattr(layer, name)]
