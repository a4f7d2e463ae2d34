"""Pictures as files, and of the size that is wanted. Pictures are arrays (H, W, 3) uint8 RGB until they are written.

OpenCV writes all of them but PNG files, which would be a quarter of the work of drawing a folder: those are written by
ISA-L where it is installed. Heat maps hardly compress, so what counts is speed. Measured on montages of 15 tiles:
OpenCV 19.8 ms and 1,091 KB, ISA-L (`pip install isal`) 5.8 ms and 1,021 KB. The pixels are the same.
"""
from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from cxr.errors import InputError, naming
from cxr.utils.files import replacing

try:
    from isal import isal_zlib
except ImportError:
    isal_zlib = None

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS, _RGB, _UP = 8, 2, 2                 # bit depth, colour type and filter of the PNG specification


def encode_png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as the content of a PNG file."""
    if isal_zlib is None:
        return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    height, width, channels = image.shape
    rows = image.reshape(height, width * channels)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, _EIGHT_BITS, _RGB, 0, 0, 0)
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in (
        (b"IHDR", header), (b"IDAT", isal_zlib.compress(filtered, 1)), (b"IEND", b"")))


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Length, kind, content, and the checksum of the last two."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """Scale (H, W, 3) uint8 into the middle of a black square of `side` pixels, aspect ratio kept."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    shrinking = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - new_height) // 2, (side - new_width) // 2
    square[top:top + new_height, left:left + new_width] = cv2.resize(image, (new_width, new_height),
                                                                     interpolation=shrinking)
    return square


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """Scale down, aspect ratio kept, until no side is longer than `side`; a smaller image stays as it is (a copy)."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image.copy()
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def encode(image: np.ndarray, suffix: str = ".png", quality: int = 90) -> bytes:
    """The content of a picture file.

    Args:
        image: (H, W, 3) uint8 RGB.
        suffix: of a PNG, JPEG, BMP or TIFF file, such as `.jpg`.
        quality: 0-100, of JPEG alone.

    Returns:
        The bytes of the file.

    Raises:
        InputError: another suffix.
    """
    if suffix.lower() == ".png":
        return encode_png(image)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix.lower() in (".jpg", ".jpeg") else []
    try:
        done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    except cv2.error:
        done = False
    if not done:
        raise InputError(f"'{suffix}' is no suffix of a picture: use .png or .jpg.")
    return data.tobytes()


def show(image: np.ndarray, side: int | None = None) -> None:
    """Display (H, W, 3) uint8 RGB in a notebook, as JPEG: a tenth of the bytes that PNG would leave in the file.

    Args:
        image: the picture.
        side: length in pixels that no side shall exceed; None: the picture as it is.
    """
    from IPython.display import Image, display
    display(Image(encode(shrink(image, side) if side else image, ".jpg", 85)))


def save_picture(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: its suffix says whether it becomes a PNG, JPEG, BMP or TIFF file.
        image: (H, W, 3) uint8 RGB.

    Raises:
        InputError: another suffix; the sentence names the file.
    """
    with naming(path):
        data = encode(image, Path(path).suffix, 95)
    with replacing(path) as file:
        file.write(data)
