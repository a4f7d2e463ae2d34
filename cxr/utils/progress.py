"""A progress bar that is a bar on a terminal and a few plain lines in a log file."""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TextIO

from tqdm import tqdm

from cxr.utils.distributed import rank


class _LogLines(tqdm):
    """tqdm that ends every report with a newline, for files and pipes."""

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        def show(text: str) -> None:
            if text:
                file.write(text.rstrip() + "\n")
                file.flush()
        return show

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.sp(str(self) if msg is None else msg)           # on a line of its own: no moving of the cursor

    def close(self) -> None:
        if not self.disable:
            self.display()
            self.leave = False                               # tqdm would leave an empty line behind
        super().close()


def progress(iterable: Iterable, total: int | None = None, desc: str = "", unit: str = "image") -> tqdm:
    """Iterate with a bar on standard error; `.set_postfix(...)` adds figures to it.

    Where standard error is not a terminal, a line is written at least 15 seconds after the last. Of several
    processes only rank 0 writes any.

    Args:
        iterable: what to iterate over.
        total: how many items it has, where it does not say so itself.
        desc: stands before the bar.
        unit: what an item is called.

    Returns:
        The items, with the bar's methods.
    """
    options = {"total": total, "desc": desc, "unit": unit, "file": sys.stderr, "ncols": 100, "disable": rank() > 0}
    if sys.stderr.isatty():
        return tqdm(iterable, leave=False, **options)
    return _LogLines(iterable, mininterval=15, maxinterval=60, ascii=True, **options)
