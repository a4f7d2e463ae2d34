"""Several processes that work as one: each does its share of the images, rank 0 speaks and writes.

Started by `python -m paddle.distributed.launch`, which tells every process its rank in its environment. With one
process nothing here does anything.
"""
from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cxr.errors import InputError

if TYPE_CHECKING:                                # one process alone needs no Paddle here
    from paddle import Tensor

Item = TypeVar("Item")


def rank() -> int:
    """Number of this process, from 0; rank 0 prints and writes."""
    return int(os.environ.get("PADDLE_TRAINER_ID", 0)) if world() > 1 else 0


def world() -> int:
    """Number of processes."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", 1))


def local_gpu() -> int | None:
    """Number of the GPU that the launcher gave to this process of several; None with one process or without GPUs."""
    number = os.environ.get("FLAGS_selected_gpus", "")  # noqa: SIM112  Paddle's name
    return int(number) if world() > 1 and number.isdigit() else None


def start() -> None:
    """Connect the processes (NCCL on GPUs, gloo on CPUs), and let all but rank 0 be quiet. Call it once.

    Raises:
        InputError: they do not find each other.
    """
    if world() == 1:
        return
    import paddle
    try:
        paddle.distributed.init_parallel_env()
    except RuntimeError as error:                # gloo now and then, where one process is slower than the other
        raise InputError(f"the processes could not connect to each other ({' '.join(str(error).split())[:150]}): start "
                         "the same command again; between machines look at --master and the firewall.") from None
    if rank() > 0:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for the rest of the process
        warnings.simplefilter("ignore")


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Every `world()`-th item, this rank's part of the work."""
    return items[rank()::world()]


def merge(part: np.ndarray, total: int) -> np.ndarray:
    """Put the rows of every rank together in order.

    Args:
        part: (n, ...), the rows of `share(range(total))` of this rank.
        total: rows of all ranks.

    Returns:
        (total, ...), on every rank.
    """
    if world() == 1:
        return part
    # A rank without a row (fewer images than processes) does not know what one looks like.
    shape, kind = next(row for row in gather([list(part.shape[1:]), part.dtype.str] if len(part) else None) if row)
    whole = np.zeros((total, *shape), kind)
    if len(part):
        whole[share(range(total))] = part
    return _sum(whole)


def gather(value: Any) -> list[Any]:
    """Exchange a value between all ranks.

    Args:
        value: what JSON can hold.

    Returns:
        The value of every rank, in their order, on every rank.
    """
    if world() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.zeros(world(), np.int64)
    lengths[rank()] = len(text)
    lengths = _sum(lengths)
    rows = np.zeros((world(), int(lengths.max())), np.int32)
    rows[rank(), :len(text)] = text
    return [json.loads(bytes(row[:length].astype(np.uint8))) for row, length in zip(_sum(rows), lengths)]


def _sum(array: np.ndarray) -> np.ndarray:
    import paddle
    tensor = paddle.to_tensor(array)
    paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def same_start(tensors: Sequence[Tensor]) -> None:
    """Give every rank the values of rank 0."""
    if world() > 1:
        import paddle
        for tensor in tensors:
            paddle.distributed.broadcast(tensor, 0)


def reduce_step(parameters: Sequence[Tensor], statistics: Sequence[Tensor], figures: np.ndarray) -> np.ndarray:
    """Close a step over all ranks, with a single message between them.

    Args:
        parameters: tensors whose gradients become the sum over the ranks; a rank without images gives zeros.
        statistics: running means and variances of batch norms, which become the mean over the ranks.
        figures: float32, of this rank.

    Returns:
        The sum of the figures over the ranks, on every rank.
    """
    if world() == 1:
        return figures
    import paddle
    with paddle.no_grad():
        gradients = [paddle.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in parameters]
        parts = [*gradients, *(tensor / world() for tensor in statistics), paddle.to_tensor(figures)]
        flat = paddle.concat([part.flatten() for part in parts])
        paddle.distributed.all_reduce(flat)
        pieces = paddle.split(flat, [int(np.prod(part.shape)) for part in parts])
        for tensor, piece in zip(parameters, pieces):
            tensor.grad = piece.reshape(tensor.shape)
        for tensor, piece in zip(statistics, pieces[len(parameters):]):
            tensor.set_value(piece.reshape(tensor.shape))
        return pieces[-1].numpy()
