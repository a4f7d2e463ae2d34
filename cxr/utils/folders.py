"""Where this project keeps what only saves time: exported networks and verdicts on GPUs."""
from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from cxr.errors import InputError

_HOME = threading.RLock()


def wanted_cache() -> Path:
    """`CXR_CACHE`, or `paddle-cxr` in the user's cache folder; nobody has looked whether it can be written to."""
    if os.environ.get("CXR_CACHE"):
        return Path(os.environ["CXR_CACHE"])
    try:
        folder = user_cache_path("paddle-cxr", appauthor=False)
    except RuntimeError:                         # a user without a home, as containers have them
        return _temporary()
    return folder if folder.is_absolute() else _temporary()          # "~/..." in older versions of platformdirs


def writable_cache(folder: Path | None = None) -> Path:
    """A folder for the cache.

    Args:
        folder: the one that is wanted, by default `wanted_cache()`.

    Returns:
        `folder` if files can be made there, otherwise a temporary one that goes with the process.

    Raises:
        InputError: no folder at all can be written to.
    """
    folder = folder or wanted_cache()
    try:
        _write_something(folder)
        return folder
    except OSError as error:
        if os.environ.get("CXR_CACHE") or folder != wanted_cache():        # somebody asked for it
            _warn_once(f"the cache {folder} cannot be written to ({error.strerror}): what would be kept there is made "
                       "anew in every run.")
        return _temporary()


@contextmanager
def home_for_paddle() -> Iterator[None]:
    """A home folder that can be written to, while Paddle makes a program of a network and puts Python code in it.

    Where that is not possible below `~/.cache`, the home folder of this process is a temporary one meanwhile.

    Raises:
        InputError: no folder at all can be written to.
    """
    variable = "USERPROFILE" if os.name == "nt" else "HOME"
    with _HOME:                                  # the variable belongs to all threads
        before = os.environ.get(variable)
        try:
            _write_something(Path.home() / ".cache" / "paddle" / "to_static_tmp")
        except (OSError, RuntimeError, KeyError):        # the latter two where there is no home at all
            os.environ[variable] = str(_temporary())
        try:
            yield
        finally:
            os.environ.pop(variable, None)
            if before is not None:
                os.environ[variable] = before


def _write_something(folder: Path) -> None:
    """Make the folder, and a file in it that is removed again.

    Raises:
        OSError: that is not possible.
    """
    trial = folder / f".{uuid.uuid4().hex}.tmp"
    folder.mkdir(parents=True, exist_ok=True)
    trial.write_bytes(b"")
    trial.unlink()


@cache
def _warn_once(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=3)


@cache
def _temporary() -> Path:
    try:
        folder = tempfile.mkdtemp(prefix="paddle-cxr-")
    except OSError:
        raise InputError("there is no folder that can be written to, not even for temporary files: name one with "
                         "CXR_CACHE.") from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
