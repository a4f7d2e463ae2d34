"""Resized images kept on disk, so that only the first epoch decodes and shrinks 1024 x 1024 files."""
from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from cxr.data.images import read_image
from cxr.data.transforms import resize
from cxr.utils.files import replacing

_HEADER = struct.Struct("<4s3I I")               # magic; height, width, channels; CRC-32 of the pixels
_MAGIC = b"cxr1"


class ResizedImages:
    """`ResizedImages(folder, size, antialias)(path)`: the image, resized, from the cache where it is there.

    An entry belongs to one path, file size, time of change, `size` and `antialias`, so a changed image or another
    preprocessing never gets an old one; a damaged entry (by its checksum) is made anew. Where the disk is full, images
    are read as without a cache.

    Args:
        folder: of the cache; it grows by height x width bytes an image (65 kB at 256 x 256; three times as much in
            colour), 7 GB for ChestX-ray14. Several processes and several trainings may share one.
        size: the `resize` of `cxr.data.transforms.Preprocess`, in pixels.
        antialias: as there.
    """

    def __init__(self, folder: str | os.PathLike, size: int | Sequence[int], antialias: bool) -> None:
        self.folder, self.size, self.antialias = Path(folder), size, antialias
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, path: str | os.PathLike) -> np.ndarray:
        """The resized image of a file.

        Returns:
            (h, w, 3) uint8 RGB.

        Raises:
            InputError: as `cxr.data.images.read_image`.
        """
        try:
            entry = self._entry(path)
        except OSError:
            return read_image(path)              # which says what is wrong with it
        image = _read(entry)
        if image is None:
            image = resize(read_image(path), self.size, self.antialias)
            with suppress(OSError):              # a full disk costs speed, not the training
                _write(entry, image)
        return image

    def _entry(self, path: str | os.PathLike) -> Path:
        status = os.stat(path)
        key = repr((os.path.abspath(path), status.st_size, status.st_mtime_ns, self.size, self.antialias))
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name[2:34]


def _read(entry: Path) -> np.ndarray | None:
    """The image of an entry, or None where there is none or it is damaged."""
    try:
        data = entry.read_bytes()
        magic, height, width, channels, checksum = _HEADER.unpack_from(data)
    except (OSError, struct.error):
        return None
    pixels = memoryview(data)[_HEADER.size:]
    if magic != _MAGIC or len(pixels) != height * width * channels or zlib.crc32(pixels) != checksum:
        return None
    image = np.frombuffer(pixels, np.uint8).reshape(height, width, channels)
    return np.repeat(image, 3, axis=2) if channels == 1 else image


def _write(entry: Path, image: np.ndarray) -> None:
    grey = (image[..., :1] == image).all()       # X-rays are; one channel says it all
    pixels = np.ascontiguousarray(image[..., :1] if grey else image)
    with replacing(entry, durable=False) as file:
        file.write(_HEADER.pack(_MAGIC, *pixels.shape, zlib.crc32(pixels)))
        file.write(pixels)
