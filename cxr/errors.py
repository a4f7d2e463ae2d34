"""The one exception that means "the input is at fault, not the program"."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input: a file, a list or an option that cannot be used.

    The message is one sentence that names the file (or option) and the remedy. The commands in
    `tools/` print it and end with status 2; a notebook sees an ordinary `ValueError`.
    """


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Put the file's name before the sentence of an `InputError` that does not know which file it is about.

    Raises:
        InputError: the one that was raised, with `path` in its sentence.
    """
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from None
