"""Every reader finds the pixels that were written, whatever compresses them."""
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from cxr.visual import image_files

SHAPES = [(1, 1), (1, 7), (5, 1), (3, 4), (224, 224), (672, 1120)]
writer = pytest.mark.parametrize("fast", [
    pytest.param(True, marks=pytest.mark.skipif(image_files.isal_zlib is None, reason="needs isal")), False])


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@writer
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_written_is_read_again(monkeypatch, fast, shape):
    if not fast:
        monkeypatch.setattr(image_files, "isal_zlib", None)
    for image in (noise(*shape), np.full((*shape, 3), (0, 7, 255), np.uint8), noise(*shape)[::-1, :, ::-1]):
        data = image_files.encode_png(image)
        Image.open(io.BytesIO(data)).verify()    # the checksums of all chunks
        found = Image.open(io.BytesIO(data))
        assert (found.format, found.mode, found.size) == ("PNG", "RGB", shape[::-1])
        assert np.array_equal(np.asarray(found), image)
        assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], image)


@pytest.mark.skipif(image_files.isal_zlib is None, reason="needs isal")
def test_two_pixels_by_hand():
    """Above one another, (1, 2, 3) and (1, 1, 5): every row begins with the filter 2, the second is the difference."""
    data = image_files.encode_png(np.array([[[1, 2, 3]], [[1, 1, 5]]], np.uint8))
    assert data[:33] == (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR" + struct.pack(">II", 1, 2) + b"\x08\x02\0\0\0"
                         + struct.pack(">I", zlib.crc32(data[12:29])))
    length, = struct.unpack(">I", data[33:37])
    assert data[37:41] == b"IDAT" and zlib.decompress(data[41:41 + length]) == bytes([2, 1, 2, 3, 2, 0, 255, 2])
    assert data[45 + length:] == b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


@pytest.mark.skipif(image_files.isal_zlib is None, reason="needs isal")
def test_a_smooth_picture_is_compressed():
    smooth = cv2.resize(noise(4, 4), (400, 400), interpolation=cv2.INTER_LINEAR)
    assert len(image_files.encode_png(smooth)) < smooth.size / 2
