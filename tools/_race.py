"""Fair timing: the candidates take turns, round after round, so that a noisy machine disturbs all alike."""
from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prettytable import PrettyTable

from cxr.device.diagnosis import processor
from cxr.errors import InputError
from cxr.runtime import usable_cores
from cxr.utils.files import write_json


@dataclass(frozen=True)
class Timing:
    """How long one candidate took.

    Attributes:
        name: of the candidate.
        seconds: one figure for each round, in the order of the rounds.
        ratio: median over the rounds of the first candidate's time divided by this one's in the same round, so 2 is
            twice as fast.
    """
    name: str
    seconds: tuple[float, ...]
    ratio: float

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


def race(candidates: Mapping[str, Callable[[], object]], rounds: int = 7, warmup: int = 1) -> list[Timing]:
    """Time the candidates in turn.

    Args:
        candidates: by name; the first is what the others are compared with.
        rounds: how often each is timed.
        warmup: how often each runs before that.

    Returns:
        One `Timing` for each candidate, in their order.
    """
    for _ in range(warmup):
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    first = np.array(next(iter(seconds.values())))
    return [Timing(name, tuple(taken), float(np.median(first / np.array(taken)))) for name, taken in seconds.items()]


class Worker:
    """Another process as a candidate: `worker()` has it run once and waits.

    The command gets its work ready, prints `ready`, then for every line on its standard input runs once and prints a
    line. So processes with other settings, or of other frameworks, can take turns with this one.

    Args:
        command: the program and its arguments.
        environ: variables to set for it.

    Raises:
        InputError: if it ends, or prints something else.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]):
        self._process = subprocess.Popen(command, env={**os.environ, **environ}, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)
        self._await("ready")

    def __call__(self) -> None:
        with suppress(BrokenPipeError):          # of a process that has ended, which the next line says better
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self._await("")

    def _await(self, word: str) -> None:
        line = self._process.stdout.readline()
        if not line or word not in line:
            self._process.kill()
            raise InputError(f"`{' '.join(map(str, self._process.args))}` ended, or said '{line.strip()}' where "
                             f"'{word or 'a line'}' was due: a peer prints `ready`, then a line for every line "
                             "it reads.")

    def close(self) -> None:
        """Let the process end, and wait for it."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def serve(run: Callable[[], object]) -> None:
    """Be a `Worker`: run once for every line on standard input, until it ends."""
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        run()
        print("done", flush=True)


def machine() -> dict[str, str]:
    """What the figures were measured on: processor, cores, versions."""
    import paddle

    return {"processor": processor(), "cores": str(usable_cores()), "device": paddle.get_device(),
            "paddle": paddle.__version__, "python": platform.python_version(), "numpy": np.__version__}


def timing_table(title: str, timings: list[Timing], images: int = 0) -> str:
    """Medians, spread, images/s where one run does `images` of them, and the ratio to the first row."""
    header = [title, "median ms", "min - max ms", *(["images/s"] if images else []), "times the first's speed"]
    table = PrettyTable(header, align="r")
    table.align[title] = "l"
    for timing in timings:
        row = [timing.name, f"{timing.median * 1e3:.1f}",
               f"{min(timing.seconds) * 1e3:.1f} - {max(timing.seconds) * 1e3:.1f}"]
        table.add_row([*row, *([f"{images / timing.median:.1f}"] if images else []), f"{timing.ratio:.2f}"])
    return table.get_string()


def save_timings(path: str | Path, sections: Mapping[str, list[Timing]]) -> None:
    """Write machine, seconds and ratios of several races as JSON."""
    write_json(path, {"machine": machine(), "timings": {
        title: {timing.name: {"seconds": timing.seconds, "ratio": timing.ratio} for timing in timings}
        for title, timings in sections.items()}})
