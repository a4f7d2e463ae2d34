"""Image files built by hand, for the tests of reading them."""
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxr.data.images import read_image
from cxr.errors import InputError


def picture():
    """(60, 50) uint8: smooth with some noise, every corner different."""
    rows, columns = np.mgrid[:60, :50]
    noise = np.random.default_rng(0).integers(0, 20, (60, 50))
    return (rows * 2 + columns * 2 + noise).astype(np.uint8)


def coloured():
    grey = picture()
    return np.dstack([grey, 255 - grey, grey // 2])


def refuser(tmp_path):
    """`check(data, name)`: the sentence with which a file of these bytes is refused; it must name the file."""
    def check(data, name="x.png"):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError) as error:
            read_image(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        return str(error.value)
    return check


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, *rows, extra=b"", interlaced=0):
    """A PNG from packed rows; colour 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def shorts(*numbers):
    return struct.pack(f">{len(numbers)}H", *numbers)


def tiff(pixels, photometric=1, deflated=False, strips=4):
    """A little-endian TIFF whose table precedes its strips, so that a cut takes pixels and leaves the table."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    step = -(-len(pixels) // strips)
    parts = [pixels[row:row + step].tobytes() for row in range(0, len(pixels), step)]
    parts = [zlib.compress(part) for part in parts] if deflated else parts
    count, bits = len(parts), 8 * pixels.itemsize
    tables = 8 + 2 + 12 * 10 + 4                              # offsets, lengths, bits of each channel
    starts = np.cumsum([tables + 8 * count + 8] + [len(part) for part in parts])[:-1]

    def entry(tag, kind, number, value):                      # the value, or where its several values lie
        return struct.pack("<HHII", tag, kind, number, value)
    directory = [entry(256, 4, 1, pixels.shape[1]), entry(257, 4, 1, len(pixels)),
                 entry(258, 3, channels, bits if channels == 1 else tables + 8 * count),
                 entry(259, 3, 1, 8 if deflated else 1), entry(262, 3, 1, photometric),
                 entry(273, 4, count, tables if count > 1 else starts[0]), entry(277, 3, 1, channels),
                 entry(278, 4, 1, step),
                 entry(279, 4, count, tables + 4 * count if count > 1 else len(parts[0])),
                 entry(339, 3, 1, 3 if pixels.dtype.kind == "f" else 1)]
    return (b"II*\0" + struct.pack("<IH", 8, len(directory)) + b"".join(directory) + bytes(4)
            + struct.pack(f"<{count}I", *starts) + struct.pack(f"<{count}I", *map(len, parts))
            + struct.pack("<4H", *[bits] * 4) + b"".join(parts))


def encoded(image, kind, **options):
    """Pillow's file of an array or a Pillow image."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
