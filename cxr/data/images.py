"""Any X-ray file in, 8-bit RGB out.

It reads PNG (1, 8 and 16 bit; grey, RGB, RGBA, palette), JPEG, BMP, TIFF, and DICOM (`cxr.data.dicom`), and refuses
everything else with a sentence that says what the file is and what to do about it.
"""
from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from cxr.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")

# Far above every detector (some 20 million pixels, 16 bits); the page passes less.
MAX_PIXELS = 100_000_000
MAX_BYTES = 512 << 20

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0            # TIFF tag and value
_TILE_SIDES = (322, 323)                         # TIFF tags
_TIFF_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}    # by type, else 1
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_PARTS = 100_000                            # of a PNG; encoders write them of 8 KB and more
_SMALL = 1 << 20
_MOST_SCANS = 100                                # of a progressive JPEG; encoders write some ten

# Said of odd metadata and of images that are merely large. Not `catch_warnings` around the call: images are
# read in threads, where it can leave all warnings of the process switched off.
warnings.filterwarnings("ignore", module=r"PIL\.")

_FOREIGN = (                                     # (offset, magic, what it is and what to do)
    (0, b"%PDF", "a PDF: export the page as PNG first"),
    (0, b"PK\x03\x04", "a zip archive: unpack it first"),
    (0, b"\x1f\x8b", "a gzip archive: unpack it first"),
    (0, b"GIF8", "a GIF: convert it to PNG first"),
    (8, b"WEBP", "a WebP image: convert it to PNG first"),
    (0, b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` to fetch the image itself"),
)


def read_image(path: str | os.PathLike, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read an image file as `read_bytes` does, and warn of what `image_notes` has to say about it.

    Args:
        path: of the file.
        max_pixels: as of `read_bytes`.
        max_bytes: likewise.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: as `read_bytes`, and for a missing file or a folder.
    """
    data = read_file(path, max_bytes)
    image = read_bytes(data, str(path), max_pixels, max_bytes)
    if remarks := image_notes(data, str(path)):
        warnings.warn(" ".join(remarks), stacklevel=2)
    return image


def read_file(path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file.

    Raises:
        InputError: it is missing, a folder, unreadable, or of more than `max_bytes` bytes, and then refused unread.
    """
    try:
        with open(path, "rb") as file:
            _check_bytes(os.fstat(file.fileno()).st_size, str(path), max_bytes)
            return file.read()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not an image: name a file in it.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the file.") from None


def read_bytes(data: bytes, name: str, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Decode the content of an image file.

    - Pixels of more than 8 bits are scaled by the bit depth that they use: a 16-bit file whose values
      stay below 4096 is taken for 12-bit, as detectors write them, instead of coming out nearly black.
    - Transparent pixels are composited on black, the background of a radiograph.
    - The EXIF orientation of photographed films is applied.

    The content may be hostile: memory and time stay bounded by the two limits, whatever it claims to hold. Data
    behind the end of a PNG or JPEG (an appended archive or page) are left alone.

    Args:
        data: the content.
        name: what the sentences call it.
        max_pixels: more are refused from the header, before anything is decoded (Pillow's own limit, 178 million,
            holds as well).
        max_bytes: more are refused unseen.

    Returns:
        (H, W, 3) uint8 RGB, range 0-255.

    Raises:
        InputError: the file is empty, truncated, oversized or foreign; the sentence begins with `name`.
    """
    _check_bytes(len(data), name, max_bytes)
    try:
        return _decode(data, max_pixels)
    except UnidentifiedImageError:
        raise InputError(f"{name} {_what_is_it(data[:512])}.") from None
    except (MemoryError, Image.DecompressionBombError):
        raise InputError(f"{name} {_too_large(max_pixels)}.") from None
    except InputError as refusal:
        raise InputError(f"{name} {refusal}.") from None
    # Pillow reports damage as OSError, SyntaxError, ValueError or struct.error, OpenCV as its own error.
    except Exception as error:
        said = " ".join(str(error).split())
        raise InputError(f"{name} is damaged or cut short ({said}): copy or download it again.") from error


def image_notes(data: bytes, name: str) -> list[str]:
    """What a DICOM file says about itself that speaks against using it here: lateral view, another body part, patient
    data in the pixels, ...

    Args:
        data: content that `read_bytes` reads.
        name: what the sentences call it.

    Returns:
        Sentences without patient data; none for a file that is not DICOM.
    """
    if not is_dicom(data):
        return []
    from cxr.data import dicom
    return dicom.notes(data, name)


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with these bytes (132 at least) is DICOM."""
    return head[128:132] == b"DICM"


def _check_bytes(size: int, name: str, most: int) -> None:
    if size > most:
        raise InputError(f"{name} is too large ({size / 2 ** 20:,.0f} MB, at most {most / 2 ** 20:,.0f} are read): "
                         "is it an image? Scale it down first.")


def _too_large(max_pixels: int) -> str:
    return f"is too large (more than {max_pixels / 1e6:,.0f} million pixels): scale it down first"


def _decode(data: bytes, max_pixels: int) -> np.ndarray:
    # Pillow reads the header and knows what is wrong with a file; OpenCV decodes, because it reads 16 bits
    # in any colour model.
    negative = False
    if is_dicom(data):
        from cxr.data import dicom
        return dicom.decode(data, max_pixels)
    if data.startswith(_PNG):
        data = _bare_png(data)                   # OpenCV would return the upper part of a truncated file
    elif data[:2] in (b"II", b"MM"):
        _check_tiff(data)
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        kind = "JPEG" if header.format == "MPO" else header.format     # a JPEG with a second picture behind it
        sides = [header.size]
        if kind == "TIFF":
            sides.append([header.tag_v2.get(tag, 1) for tag in _TILE_SIDES])
            negative = header.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        if max(width * height for width, height in sides) > max_pixels:
            raise InputError(_too_large(max_pixels))
        if kind == "PNG":
            _check_inflated(data, *header.size)
    if kind == "JPEG":
        # In the data of a JPEG scan 0xFF is escaped, so its end marker must come after the last scan's start.
        if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
            raise ValueError("the end of the image is missing")
        if data.count(b"\xff\xda") > _MOST_SCANS:        # a few bytes each, and a pass over all pixels
            raise InputError(f"has more than {_MOST_SCANS} scans, as no camera writes: save it anew")
    # Only JPEGs carry an orientation worth applying, which OpenCV does in its colour mode alone.
    mode = cv2.IMREAD_COLOR if kind == "JPEG" else cv2.IMREAD_UNCHANGED
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    if pixels is None:
        raise ValueError("its pixels cannot be decoded")
    image = _to_rgb(pixels)
    # OpenCV turns a negative (as MONOCHROME1 radiographs are exported) round at 8 bits, and leaves it at more.
    return 255 - image if negative and pixels.dtype != np.uint8 else image


def _png_parts(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """`(kind, start, end)` of each chunk of a PNG, checksums verified, up to its end."""
    at, whole = len(_PNG), memoryview(data)
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError("the end of the image is missing")
        if zlib.crc32(whole[at + 4:end - 4]) != int.from_bytes(whole[end - 4:end], "big"):
            raise ValueError(f"wrong checksum in its part {kind.decode('latin1')!r}")
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end
    raise InputError("is cut into needlessly many parts: save it anew")


def _bare_png(data: bytes) -> bytes:
    """A PNG's critical chunks and its transparency, without what follows its end.

    Compressed texts and profiles serve no X-ray, and both decoders would inflate them: OpenCV to 8 MB for 8 KB each.
    """
    bare = bytearray(_PNG)
    for kind, start, end in _png_parts(data):
        if kind[:1].isupper() or kind == b"tRNS":
            bare += data[start:end]
    return bytes(bare)


def _check_inflated(data: bytes, width: int, height: int) -> None:
    """Refuse a PNG whose data inflate far beyond its picture: libpng reads on to the end, two seconds a megabyte."""
    if len(data) < _SMALL:
        return
    inflater, room = zlib.decompressobj(), 9 * width * height + _SMALL     # 8 bytes a pixel, and one a row
    for kind, start, end in _png_parts(data):
        piece = data[start + 8:end - 4] if kind == b"IDAT" else b""
        while piece and not inflater.eof:
            room -= len(inflater.decompress(piece, _SMALL))
            piece = inflater.unconsumed_tail
            if room < 0:
                raise InputError("inflates to far more than its picture: save it anew")


def _check_tiff(data: bytes) -> None:
    """Refuse what makes the first table of a TIFF a trap, and a second table.

    Of a tag that comes twice Pillow, which is asked for the size, would believe the last, OpenCV the first; and
    Pillow would copy the same bytes of the file once for each of 65,535 tags.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43                    # BigTIFF
    word = order + ("Q" if big else "I")
    start, = struct.unpack_from(word, data, 8 if big else 4)
    number, = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    first, step = (start + 8, 20) if big else (start + 2, 12)
    if first + number * step > len(data):
        raise ValueError("its table is cut short")
    entry = struct.Struct(order + ("HHQ" if big else "HHI"))
    entries = [entry.unpack_from(data, first + index * step) for index in range(number)]
    if len({tag for tag, _, _ in entries}) < number:
        raise InputError("contradicts itself (a tag comes twice): save it anew")
    if sum(_TIFF_BYTES.get(kind, 1) * values for _, kind, values in entries) > len(data):
        raise ValueError("its tags claim more than the file holds")
    if struct.unpack_from(word, data, first + number * step)[0]:
        raise InputError("holds several images: save the one you want as its own file")


def _to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Grey, BGR or BGRA of any depth to RGB uint8."""
    alpha = None
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels, alpha = pixels[..., :3], pixels[..., 3:]
        opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else 1.0
    pixels = _to_8bit(pixels)
    if alpha is not None and (alpha != opaque).any():
        pixels = np.round(pixels * (alpha / opaque)).astype(np.uint8)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_BGR2RGB)


def _to_8bit(pixels: np.ndarray) -> np.ndarray:
    """Scale values of more than 8 bits (or floats) to uint8 by the bit depth that they use."""
    if pixels.dtype == np.uint8:
        return pixels
    if not np.isfinite(pixels).all():
        raise InputError("holds undefined pixel values (NaN): export it again")
    top = float(pixels.max())
    if pixels.min() < 0:
        raise InputError("holds negative pixel values: export it as 8- or 16-bit greys")
    if pixels.dtype.kind == "f":                 # a float image has no bit depth, only a range
        full = top or 1.0
    else:
        full = next((2 ** bits - 1 for bits in (8, 10, 12, 14, 16) if top < 2 ** bits), top)
    return np.round(pixels * (255.0 / full)).astype(np.uint8)


def _what_is_it(head: bytes) -> str:
    """Complete the sentence 'FILE ...' for a file that no image reader recognises, from its first 512 bytes."""
    if not head:
        return "is empty: copy or download it again"
    for offset, magic, what in _FOREIGN:
        if head[offset:offset + len(magic)] == magic:
            return "is " + what
    if head.lstrip()[:1] == b"<":
        return "is a web page, not an image: the download went wrong, fetch it again"
    if _is_text(head):
        return "holds text, not an image: check where it came from"
    return f"is no image in a format read here ({', '.join(FORMATS)}), or its first bytes are damaged"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < 512 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


def find_images(inputs: Iterable[str | os.PathLike]) -> list[tuple[Path, Path]]:
    """Expand files and folders to `(path, name)` pairs, in a stable order.

    A folder is searched with its subfolders for the suffixes in `SUFFIXES`, and for DICOM files without one (or with
    a number for one, as in a file named by its UID). A file stands for itself whatever its suffix.

    Args:
        inputs: paths of files and folders.

    Returns:
        `(path, name)` of each file, once. The name is the path below the given folder, so that results can be laid out
        alike; where two names agree, both get as many parent folders as all such files do not share.

    Raises:
        InputError: a path is missing, or a folder holds no images.
    """
    found: dict[str, tuple[Path, Path]] = {}     # absolute path -> (path, name)

    def add(path: Path, name: Path) -> None:
        found.setdefault(os.path.abspath(path), (path, name))

    for given in map(Path, inputs):
        if given.is_dir():
            below = sorted(p for p in given.rglob("*") if p.name[0] != "." and _looks_like_an_image(p))
            if not below:
                raise InputError(f"{given} holds no images ({', '.join(SUFFIXES)}): name another folder.")
            for path in below:
                add(path, path.relative_to(given))
        elif given.exists():
            add(given, Path(given.name))
        else:
            raise InputError(f"{given} does not exist: check the path.")
    repeated = {name for name, count in Counter(name for _, name in found.values()).items() if count > 1}
    clashing = [os.path.dirname(place) for place, (_, name) in found.items() if name in repeated]
    shared = os.path.commonpath(clashing) if clashing else ""
    return [(path, Path(os.path.relpath(place, shared)) if name in repeated else name)
            for place, (path, name) in found.items()]


def _looks_like_an_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return path.is_file()
    if suffix and not suffix[1:].isdigit() or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False
