"""Which scores are explained: the `targets` argument, resolved against the scores of a batch."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Union

import numpy as np
import paddle

from cxr.errors import InputError

TargetChoice = Union[None, int, str, Sequence, np.ndarray, Callable]     # what `Targets` takes


class Targets:
    """`n` scores for each of B images.

    Args:
        targets: None (the highest class of each image), an int, B ints, B x n ints, "all" (every class), or a
            callable that gets the scores (N, ...) and returns one score per row, (N,).
        scores: of the batch; classes need (B, K).

    Attributes:
        function: the callable, or None.
        classes: (B, n) ints, None for a callable.
        n: scores per image.
        many: whether the caller asked for a class axis.

    Raises:
        InputError: the targets or the scores are none of those.
    """

    def __init__(self, targets: TargetChoice, scores: Any):
        self.function = targets if callable(targets) else None
        self.classes = None if self.function else _classes(targets, scores)
        self.n = 1 if self.function else self.classes.shape[1]
        self.many = self.function is None and (isinstance(targets, str) or np.ndim(targets) == 2)

    def pick(self, scores: Any, j: int, image: int | None = None) -> paddle.Tensor:
        """The scores of one target.

        Args:
            scores: (N, K), or whatever a callable takes.
            j: which target of an image.
            image: whose target it is in all rows; None: row i belongs to image i.

        Returns:
            (N,).

        Raises:
            InputError: a callable returns anything else.
        """
        if self.function:
            picked = self.function(scores)
            if not isinstance(picked, paddle.Tensor) or len(picked.shape) != 1:
                raise InputError("a target callable must return a tensor (N,), one score for each row")
            return picked
        classes = self.classes[:, j] if image is None else np.full(scores.shape[0], self.classes[image, j])
        return paddle.take_along_axis(scores, paddle.to_tensor(classes[:, None]), 1)[:, 0]


def _classes(targets: TargetChoice, scores: Any) -> np.ndarray:
    if not isinstance(scores, paddle.Tensor) or len(scores.shape) != 2:
        what = tuple(scores.shape) if isinstance(scores, paddle.Tensor) else type(scores).__name__
        raise InputError(f"the model gives {what}, not class scores (B, K); let targets be a callable on it")
    batch, count = scores.shape
    if targets is None:
        return scores.detach().astype("float32").numpy().argmax(1)[:, None]
    if isinstance(targets, str):
        if targets != "all":
            raise InputError(f'targets is {targets!r}; the only name it can be is "all"')
        return np.tile(np.arange(count), (batch, 1))
    try:
        classes = np.asarray(targets)
    except ValueError:
        classes = np.empty(0)
    if classes.dtype.kind not in "iu" or classes.ndim > 2 or (classes.ndim and classes.shape[0] != batch):
        raise InputError(f"targets must be None, a class, one class (or row of them) for each of the {batch} "
                         f'images, "all" or a callable, not {targets!r}')
    if classes.size == 0 or classes.min() < 0 or classes.max() >= count:
        raise InputError(f"targets {targets!r} are out of range: the model has classes 0 to {count - 1}")
    classes = classes.astype(np.int64)
    return classes if classes.ndim == 2 else np.broadcast_to(classes.reshape(-1, 1), (batch, 1)).copy()
