"""Files that are whole or not there at all."""
from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike, durable: bool = True) -> Iterator[BinaryIO]:
    """`with replacing(path) as file:` a binary file that takes its name only once it is complete.

    It is written beside its final place, flushed to disk, then renamed; after an exception nothing remains of it and a
    previous file of that name is untouched. Missing folders are made.

    Args:
        path: of the file.
        durable: False leaves out the flush, for what can be made again and is checked when read.

    Raises:
        OSError: it cannot be written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for every writer, never longer than a file system allows; the dot keeps it out of listings.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hex, with little of it in memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` as `json_text` gives it, whole or not at all."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """`value` as indented JSON. NaN becomes null, which JSON can hold."""
    return json.dumps(_without_nan(value), indent=2, ensure_ascii=False) + "\n"


def _without_nan(value: object) -> object:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return value


def write_csv(path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table as `csv_text` gives it, whole or not at all."""
    write_text(path, csv_text(header, rows))


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A comma-separated table with a header line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
