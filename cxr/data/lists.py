"""The lists that say which images there are, and the tables that say whose they are and where they come from.

Imports no Paddle: stored predictions are judged without it.
"""
from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.errors import InputError


@dataclass(frozen=True)
class LabelList:
    """What a list file says.

    Attributes:
        names: of the images.
        numbers: their lines in the file, from 1.
        labels: an array of as many rows.
    """
    names: list[str]
    numbers: list[int]
    labels: np.ndarray


def read_list(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """`(line number, line)` of the non-empty lines of a list file.

    Raises:
        InputError: there is no such file, it is no text, or it has no such lines.
    """
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
    """Refuse a list of images that are not all there.

    Args:
        data_dir: folder that the names are relative to.
        names: of the images.
        numbers: their lines in the list.
        list_file: the list, for the sentence.

    Raises:
        InputError: names the first missing file with its line number, and how many are missing.
    """
    missing = missing_files(data_dir, names)
    if missing:
        first = missing[0]
        more = f" (and {len(missing) - 1} more of {len(names)} are missing)" if len(missing) > 1 else ""
        raise InputError(f"{list_file}, line {numbers[first]}: {Path(data_dir, names[first])} does not exist{more}: "
                         "check --data_dir.")


def read_patients(csv_file: str | os.PathLike) -> dict[str, str]:
    """Image name -> patient, from a table with the columns `file` and `patient`.

    Raises:
        InputError: the table cannot be read, is empty or lacks one of the columns.
    """
    try:
        with open(csv_file, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{csv_file} is no readable table ({error}): check the path.") from None
    if not rows or not {"file", "patient"} <= set(rows[0]):
        raise InputError(f"{csv_file} needs the columns `file` and `patient`.")
    return {row["file"]: row["patient"] for row in rows}


def sources_of(data_dir: str | os.PathLike, table: str | os.PathLike | None = None,
               column: str | None = None) -> dict[str, str] | None:
    """Where each image comes from, by a table with the column `file`.

    Args:
        data_dir: folder of the images.
        table: by default `sources.csv` in `data_dir`.
        column: that says the source; by default `source`, or else `source_file`, of which the first folder counts, or
            the name with its digits as `#`: collections number their files in their own ways.

    Returns:
        Image name -> source; None where no table is named and there is none in `data_dir`, or where the table has no
        column that says a source.

    Raises:
        InputError: the table cannot be read, or lacks the `column` that was named.
    """
    path = Path(table or Path(data_dir, "sources.csv"))
    if not table and not path.exists():
        return None
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no readable table ({error}): check the path.") from None
    has = set(rows[0]) if rows else set()
    chosen = column or next((name for name in ("source", "source_file") if name in has), None)
    if column and not {"file", column} <= has:
        raise InputError(f"{path} needs the columns `file` and `{column}`.")
    if chosen is None or "file" not in has:
        return None
    if chosen == "source_file":
        return {row["file"]: re.sub(r"\d+", "#", re.split(r"[/\\]", row[chosen] or "")[0]) for row in rows}
    return {row["file"]: row[chosen] for row in rows}
