"""PNG files, a quarter of the work of drawing a folder where OpenCV writes them: by ISA-L where it is installed.

Heat maps hardly compress, so what counts is speed. Measured on montages of 15 tiles: OpenCV 19.8 ms and 1,091 KB,
ISA-L (`pip install isal`) 5.8 ms and 1,021 KB. The pixels are the same.
"""
from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

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
