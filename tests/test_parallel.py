"""Work in threads, results in order, memory bounded."""
import os
import threading
import time

import numpy as np
import pytest

from cxr.utils.parallel import batches, default_workers, grouped, ordered_map

WORKERS = [0, 1, 3, 8]


def slow_first(number):
    time.sleep(0.002 * (5 - number % 5))
    return number * number


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("ahead", [0, 1, 4, 1000])
def test_order_is_kept(workers, ahead):
    assert list(ordered_map(slow_first, range(20), workers, ahead)) == [number * number for number in range(20)]


@pytest.mark.parametrize("workers", WORKERS)
def test_nothing_to_do(workers):
    assert list(ordered_map(slow_first, [], workers, 3)) == []


def test_work_is_really_done_side_by_side():
    together = threading.Barrier(3, timeout=5)                  # passes only when three are inside at once
    assert len(list(ordered_map(lambda _: together.wait(), range(6), 3, 6))) == 6


def test_no_workers_means_the_calling_thread():
    assert set(ordered_map(lambda _: threading.get_ident(), range(3), 0, 5)) == {threading.get_ident()}
    assert threading.get_ident() not in set(ordered_map(lambda _: threading.get_ident(), range(3), 1, 5))


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_items_are_drawn_no_further_ahead_than_said(ahead):
    drawn, consumed = 0, 0

    def items():
        nonlocal drawn
        for number in range(30):
            drawn += 1
            assert drawn - consumed <= ahead + 1
            yield number
    for _ in ordered_map(slow_first, items(), 4, ahead):
        assert drawn - consumed <= ahead + 1
        consumed += 1
    assert drawn == consumed == 30


@pytest.mark.parametrize("workers", WORKERS)
def test_an_exception_comes_in_its_place(workers):
    def fail_at_seven(number):
        began.append(number)
        if number == 7:
            raise KeyError("seven")
        return slow_first(number)
    results, began = [], []
    with pytest.raises(KeyError, match="seven"):
        for result in ordered_map(fail_at_seven, range(1000), workers, 10):
            results.append(result)
    assert results == [number * number for number in range(7)]
    assert len(began) <= 7 + 11 + 1


@pytest.mark.parametrize("workers", WORKERS)
def test_an_exception_of_the_items_is_passed_on(workers):
    def items():
        yield 1
        raise OSError("list cut short")
    with pytest.raises(OSError, match="list cut short"):
        list(ordered_map(slow_first, items(), workers, 3))


@pytest.mark.parametrize("workers", [1, 2])
def test_closing_early_stops_the_work(workers):
    began, threads = [], threading.active_count()

    def work(number):
        began.append(number)
        time.sleep(0.01)
    results = ordered_map(work, range(10000), workers, 50)
    next(results)
    results.close()
    count = len(began)
    assert count <= 1 + 2 * workers + 1                         # of the 51 drawn most had not begun
    time.sleep(0.05)
    assert len(began) == count and threading.active_count() == threads


class Numbers:
    """A data set of n pictures (1, 2) that hold their index."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return np.full((1, 2), index, "float32"), np.array(index % 3)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("length, sizes", [(6, [3, 3]), (7, [3, 3, 1]), (2, [2]), (0, [])])
def test_batches(workers, length, sizes):
    order = list(range(length))[::-1]
    got = list(batches(Numbers(length), order, 3, workers))
    assert [len(labels) for _, labels in got] == sizes
    assert [int(number) for images, _ in got for number in images[:, 0, 0]] == order
    assert [int(label) for _, labels in got for label in labels] == [index % 3 for index in order]
    assert all(images.shape[1:] == (1, 2) for images, _ in got)


def test_default_workers():
    assert 1 <= default_workers() <= min(8, os.cpu_count())


def test_groups_keep_the_order_and_the_rest():
    assert list(grouped(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(grouped([], 3)) == []
