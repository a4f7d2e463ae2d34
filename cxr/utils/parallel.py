"""Work in threads, results in order, memory bounded.

Threads suffice: decoding, resizing and Paddle's kernels release Python's lock. Unlike worker processes
they share memory, pass exceptions on as they are, and give the same results whatever their number.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cxr.runtime import usable_cores

if TYPE_CHECKING:                                # threads need no Paddle
    from paddle.io import Dataset

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """Threads that prepare images: enough to keep a GPU fed, and no more than there are cores."""
    return min(8, usable_cores())


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], workers: int,
                ahead: int) -> Iterator[Result]:
    """`map(function, items)` in threads.

    The first exception is raised in its place in the order; work not yet begun is then dropped.

    Args:
        function: called on each item.
        items: what it is called on.
        workers: number of threads; with 0 everything happens in the calling thread.
        ahead: how many items beyond the one being consumed are begun at most.

    Yields:
        The results, in the order of the items.
    """
    if workers == 0:
        yield from map(function, items)
        return
    waiting: deque = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def grouped(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items in their order; the last may be short."""
    items = iter(items)
    while group := list(islice(items, size)):
        yield group


def batches(dataset: Dataset, order: Iterable[int], batch_size: int,
            workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels in batches, made in threads.

    Args:
        dataset: gives `(image, label)` for an index.
        order: the indices.
        batch_size: images in a batch; the last may be short.
        workers: number of threads; 0 for the calling thread alone.

    Yields:
        `(images, labels)`, stacked: (batch_size, ...) each.
    """
    images, labels = [], []
    for image, label in ordered_map(dataset.__getitem__, order, workers, ahead=2 * batch_size):
        images.append(image)
        labels.append(label)
        if len(images) == batch_size:
            yield np.stack(images), np.stack(labels)
            images, labels = [], []
    if images:
        yield np.stack(images), np.stack(labels)
