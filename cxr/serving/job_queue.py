"""A line of jobs: a few at once, the others wait, and the line has an end."""
from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any


class Busy(RuntimeError):
    """The line is full: come again later. The message is a sentence for the user."""


class Job:
    """A piece of work in the line of a `Desk`.

    Args:
        future: of the work.
        ahead: how many jobs came earlier and are not yet done.
    """

    def __init__(self, future: Future, ahead: Callable[[], int]):
        self._future, self.ahead = future, ahead

    def done_within(self, seconds: float) -> bool:
        """Wait up to `seconds`, and say whether the job is done."""
        return bool(wait([self._future], timeout=seconds).done)

    def result(self) -> Any:
        """What the work returned, once it is done; raises what it raised."""
        return self._future.result()

    def cancel(self) -> None:
        """Leave the line. A job that has begun runs to its end, and its result is dropped."""
        self._future.cancel()


class Desk:
    """At most `computing` jobs at a time, in that many threads; at most `waiting` more in the line.

    The threads are always the same ones, because Paddle's oneDNN kernels keep memory for every thread that ever
    called them. Jobs begin in the order in which they came.

    Args:
        computing: jobs at a time.
        waiting: jobs in the line behind them.
        prepare: called once in each thread before the first job; the constructor waits for it and raises what it
            raised.
    """

    def __init__(self, computing: int, waiting: int, prepare: Callable[[], object] = lambda: None):
        self._pool = ThreadPoolExecutor(computing, thread_name_prefix="cxr-desk")
        together = threading.Barrier(computing)      # none takes the place of another: each thread gets one

        def begin() -> None:
            together.wait()
            prepare()
        for future in [self._pool.submit(begin) for _ in range(computing)]:
            future.result()
        self._room = computing + waiting
        self._line: dict[int, Future] = {}           # in order of arrival
        self._lock = threading.Lock()
        self._count = 0

    def submit(self, work: Callable, *arguments: Any) -> Job:
        """Get in line.

        Args:
            work: what to call.
            *arguments: of the call.

        Raises:
            Busy: the line is full.
        """
        with self._lock:
            if len(self._line) >= self._room:
                raise Busy(f"{len(self._line)} requests are waiting already: try again in a minute.")
            self._count += 1
            number = self._count
            future = self._line[number] = self._pool.submit(work, *arguments)
        future.add_done_callback(lambda _: self._leave(number))
        return Job(future, lambda: self._ahead(number))

    def run(self, work: Callable, *arguments: Any) -> Any:
        """Get in line, wait, and return what the work returned.

        Args:
            work: what to call.
            *arguments: of the call.

        Raises:
            Busy: the line is full.
            Exception: what the work raised.
        """
        job = self.submit(work, *arguments)
        try:
            return job.result()
        except BaseException:
            job.cancel()
            raise

    def _leave(self, number: int) -> None:
        with self._lock:
            self._line.pop(number, None)

    def _ahead(self, number: int) -> int:
        with self._lock:
            return sum(earlier < number for earlier in self._line)
