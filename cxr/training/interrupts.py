"""Ctrl-C and SIGTERM at a moment that suits the work."""
from __future__ import annotations

import signal
import threading


class Interrupts:
    """`with Interrupts() as interrupts:` the first Ctrl-C or SIGTERM only sets `pending`, which the work looks at.

    A second one, or one while `at_once` is set, raises `KeyboardInterrupt` where the program stands. Outside the main
    thread Python passes no signals on, and nothing is pending ever.
    """

    def __init__(self):
        self.pending = self.at_once = False
        self._before: dict = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_) -> None:
        if self.pending or self.at_once:
            raise KeyboardInterrupt
        self.pending = True
