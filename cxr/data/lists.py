"""The list files that say which images there are. Imports no Paddle: stored predictions are judged without it."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.errors import InputError


@dataclass(frozen=True)
class LabelList:
    """What a list file says: image names, their line numbers in the file, and their labels, an array of as many rows.
    """
    names: list[str]
    numbers: list[int]
    labels: np.ndarray


def read_list(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """`(line number, line)` of the non-empty lines of a list file. Raises `InputError` if it has none."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path of the list.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no readable text file ({error}): check the path of the list.") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty: a list needs one image a line.")
    return iter(lines)


def missing_files(data_dir: str | os.PathLike, names: Sequence[str]) -> list[int]:
    """Indices of the names for which there is no file in `data_dir`."""
    # One listing of each folder: asking for 112,120 files one by one takes minutes on network disks.
    listed: dict[Path, set[str]] = {}
    missing = []
    for index, name in enumerate(names):
        path = Path(data_dir, name)
        if path.parent not in listed:
            listed[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
        if path.name not in listed[path.parent]:
            missing.append(index)
    return missing


def require_files(data_dir: str | os.PathLike, names: Sequence[str], numbers: Sequence[int],
                  list_file: str | os.PathLike) -> None:
    """Raise `InputError` naming the first missing file with its line number, and how many are missing."""
    missing = missing_files(data_dir, names)
    if missing:
        first = missing[0]
        more = f" (and {len(missing) - 1} more of {len(names)} are missing)" if len(missing) > 1 else ""
        raise InputError(f"{list_file}, line {numbers[first]}: {Path(data_dir, names[first])} does not exist{more}: "
                         "check --data_dir.")
