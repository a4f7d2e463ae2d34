"""What strangers send: images from memory, refused where they are too large or two things at once."""
from __future__ import annotations

import re
import struct

import numpy as np

from cxr.data.images import read_bytes
from cxr.errors import InputError

# A detector's 16-bit image of 20 million pixels, twice over.
MAX_BYTES = 64 << 20
MAX_PIXELS = 40_000_000

_PAGE = re.compile(rb"<(?:script|html|svg|!doctype html|\?php)[\s>]", re.IGNORECASE)
_ZIP_END, _ZIP_END_LENGTH, _ZIP_COMMENT = b"PK\x05\x06", 22, 0xFFFF
_PDF_REACH = 1024                                # how far from its start a reader looks for the mark of a PDF
_PROGRAMS = (b"MZ", b"\x7fELF", b"#!", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe")


def read_upload(data: bytes, name: str, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Decode an uploaded image as `cxr.data.images.read_bytes` does: (H, W, 3) uint8 RGB.

    A polyglot is refused besides: an image that a reader of archives, PDFs, web pages or programs would take for one
    of those.

    Args:
        data: the file's content.
        name: what the sentence of an error calls the image.
        max_pixels: refused above, in pixels of the image.
        max_bytes: refused above, in bytes of the file.

    Raises:
        InputError: the image cannot be used; the sentence names it.
    """
    if len(data) <= max_bytes and (second := second_nature(data)):
        raise InputError(f"{name} is an image and {second} at the same time: export the image alone, as PNG.")
    return read_bytes(data, name, max_pixels, max_bytes)


def second_nature(data: bytes) -> str | None:
    """What else than an image the content of an image file would pass for, such as "a PDF"; None for nothing."""
    if data[:4] in (b"PK\x03\x04", b"%PDF") or data.lstrip()[:1] == b"<":
        return None                                  # not an image in the first place; `read_bytes` says what it is
    if _ends_as_zip(data):
        return "a zip archive"
    if b"%PDF-" in data[:_PDF_REACH]:
        return "a PDF"
    # The first 128 bytes of a DICOM file are free, also for the header of a program.
    if data[128:132] == b"DICM" and data.startswith(_PROGRAMS):
        return "a program"
    return "a web page" if _PAGE.search(data) else None


def _ends_as_zip(data: bytes) -> bool:
    """Whether a zip reader, which looks for the directory at the end, finds one."""
    tail = data[-_ZIP_END_LENGTH - _ZIP_COMMENT:]
    at = tail.rfind(_ZIP_END)
    if not 0 <= at <= len(tail) - _ZIP_END_LENGTH:
        return False
    size, offset, comment = struct.unpack_from("<IIH", tail, at + 12)
    before = len(data) - len(tail) + at
    return size + offset <= before and at + _ZIP_END_LENGTH + comment <= len(tail)
