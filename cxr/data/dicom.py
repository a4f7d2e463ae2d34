"""DICOM files: from stored values to the 8-bit RGB that a viewer would show. Needs the extra `dicom` (pydicom).

The order is that of the standard's greyscale pipeline (PS3.4 N.2): modality LUT or rescale, VOI LUT or window,
then MONOCHROME1 turned round. `cxr.data.images` is the way in; nothing here writes anything.
"""
from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cxr.errors import InputError

if TYPE_CHECKING:                                # an extra, which only DICOM files need
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

# Both would print values of other people's files, the patient's name among them.
warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

_NEEDED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
_READ = (*_NEEDED, "SOPClassUID", "Modality", "BodyPartExamined", "ViewPosition", "PatientOrientation",
         "PresentationIntentType", "BurnedInAnnotation", "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames",
         "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
         "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "VOILUTFunction", "WindowCenter",
         "WindowWidth", *(f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue")
                          for part in ("Descriptor", "Data")), "PixelData")
_PIXELS = 0x7FE00010
# What decompresses, the first that can. Not GDCM: it crashes on damaged data of every kind.
_READERS = ("pydicom", "pyjpegls", "pillow", "pylibjpeg")
_LS, _JPEG = "pyjpegls", "pylibjpeg pylibjpeg-libjpeg"             # the latter GPL, so not in the extra
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_PACKAGES = {_JPEG_EXTENDED: _JPEG, "1.2.840.10008.1.2.4.57": _JPEG, "1.2.840.10008.1.2.4.70": _JPEG,
             "1.2.840.10008.1.2.4.80": _LS, "1.2.840.10008.1.2.4.81": _LS}
_DEFLATED, _RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
_MOST_READS, _LONGEST = 50_000, 1 << 20          # of a header: a thousand reads and some LUTs of 128 KB are usual

_RADIOGRAPHY = ("CR", "DX", "DR", "RG", "RF", "XA", "OT", "")
_CHEST = ("CHEST", "THORAX", "TORAX", "THX", "LUNG", "PULMO")
_FRONTAL = ("PA", "AP", "FRONTAL", "POSTEROANT", "ANTEROPOST")


class _Metered(io.BytesIO):
    """Bytes whose reader gives up where a file is made of needlessly many elements, nested ones included."""

    reads = 0

    def read(self, *size: int) -> bytes:
        self.reads += 1
        if self.reads > _MOST_READS:
            raise InputError("holds needlessly many elements: export it again")
        return super().read(*size)


def require(what: str) -> None:
    """Make sure that pydicom is there.

    Args:
        what: needs it; the sentence begins with that.

    Raises:
        InputError: pydicom is missing.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise InputError(f"{what} needs pydicom: install the extra dicom (`pip install pydicom pyjpegls`)") from None


def read(data: bytes, names: Sequence[str] = _READ) -> Dataset:
    """Read elements of a DICOM file.

    Args:
        data: the file's content.
        names: of the elements, as pydicom has them.

    Returns:
        A pydicom dataset with those of the elements that the file has.

    Raises:
        InputError: pydicom is missing, or the file is deflated or holds needlessly many or long elements; the sentence
            does not name it.
    """
    require("is a DICOM file, which")
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset, read_partial

    start = io.BytesIO(data[132:132 + _LONGEST])
    meta = read_dataset(start, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == _DEFLATED:
        raise InputError("is a deflated DICOM file: export it uncompressed")   # would be inflated without a limit
    wanted = {tag_for_keyword(name) for name in names}
    ended = False

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal ended
        if ended:
            return True
        ended = tag == _PIXELS
        if tag in wanted and not ended and _LONGEST < length < 0xFFFFFFFF:
            raise InputError(f"holds a needlessly long element {tag}: export it again")
        return False
    return read_partial(_Metered(data), stop_when=stop, specific_tags=list(wanted))


def decode(data: bytes, max_pixels: int) -> np.ndarray:
    """The picture of a single-frame DICOM image.

    - Grey values are shown through the file's first VOI LUT, else its first window. Without either (or where the
      window cannot be applied, or would leave one grey) 8-bit values are taken as they are, as something has
      already made them fit for display; deeper ones are stretched from the 0.5th to the 99.5th percentile, because
      detectors use only a part of their depth, and a few dead pixels or a lead marker must not decide the contrast.
    - Padding outside the exposed field is black and has no say in that stretch.
    - RGB, YBR and PALETTE COLOR come out in their colours; overlays are not drawn.

    Args:
        data: the file's content.
        max_pixels: more are refused before they are decompressed.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: there is no such image in the file; the sentence does not name it. Other exceptions mean damage.
    """
    ds = read(data)
    if "PixelData" not in ds:
        what = getattr(ds.get("SOPClassUID"), "name", "")
        raise InputError(f"is a DICOM file without a picture{f' ({_clean(what)})' if what else ''}, or was cut short: "
                         "name an image of the study")
    lacking = [name for name in _NEEDED if ds.get(name) is None]
    if lacking:
        raise InputError(f"is a DICOM file that lacks {', '.join(lacking)}, without which its pixels cannot be read: "
                         "export it again")
    rows, columns, frames = int(ds.Rows), int(ds.Columns), int(ds.get("NumberOfFrames") or 1)
    ds.SamplesPerPixel = int(ds.get("SamplesPerPixel") or 1)
    if frames > 1:
        raise InputError(f"is a DICOM file of {frames} frames: export the one you want as its own file")
    if rows * columns * ds.SamplesPerPixel > 3 * max_pixels or rows * columns > max_pixels:
        raise InputError(f"is too large (more than {max_pixels / 1e6:,.0f} million pixels): scale it down first")
    ds.BitsStored = ds.get("BitsStored") or ds.BitsAllocated
    ds.PixelRepresentation = ds.get("PixelRepresentation") or 0
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = ds.get("PlanarConfiguration") or 0
    values, photometric = _stored_values(ds)
    if photometric == "PALETTE COLOR":
        values = _through_palette(values, ds)
    elif photometric in ("MONOCHROME1", "MONOCHROME2") and values.ndim == 2:
        grey = _shown(values, ds)
        return np.repeat(grey[..., None], 3, axis=2)
    elif photometric == "RGB" and ds.BitsStored != 8:
        values = np.round(values * (255 / (2 ** ds.BitsStored - 1)))
    if photometric not in ("RGB", "PALETTE COLOR") or values.ndim != 3 or values.shape[2] != 3:
        raise InputError(f"is a DICOM file in the colours {_clean(photometric)}, which are not read: export it as grey")
    return np.ascontiguousarray(values, np.uint8)


def _stored_values(ds: Dataset) -> tuple[np.ndarray, str]:
    """The decompressed values, (H, W) or (H, W, 3), and what they stand for (YBR already turned into RGB)."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(ds.file_meta.get("TransferSyntaxUID", ""))
    if not syntax:
        implicit, little = ds.original_encoding
        syntax = UID("1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2"))
        ds.file_meta.TransferSyntaxUID = syntax
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise InputError(f"is a DICOM file compressed as {_clean(syntax.name)}, which is not read: export it "
                         "uncompressed") from None
    reader = ""
    if syntax.is_compressed:
        # Pillow reads 12-bit lossy JPEG only to say that it does not.
        deep = syntax == _JPEG_EXTENDED and ds.BitsStored > 8
        readers = _READERS[-1:] if deep else _READERS
        reader = next((name for name in readers if name in decoder.available_plugins), "")
        if not reader:
            package = _PACKAGES.get(syntax, "pylibjpeg pylibjpeg-openjpeg")
            raise InputError(f"is a DICOM file compressed as {_clean(syntax.name)}, which needs another package: run "
                             f"`pip install {package}`, or export the image uncompressed")
        _check_frame(ds, syntax)
    values, meta = decoder.as_array(ds, index=0, decoding_plugin=reader)
    return values, str(meta["photometric_interpretation"])


def _check_frame(ds: Dataset, syntax: str) -> None:
    """Refuse a codestream of another size than the file says (it could be any), or that does not reach its end."""
    from pydicom.encaps import get_frame

    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    if syntax == _RLE:
        return _check_rle(frame, ds.Rows * ds.Columns)
    size = _size_in_stream(frame)
    if size != (ds.Rows, ds.Columns):
        raise InputError(f"contradicts itself ({ds.Rows} x {ds.Columns} pixels, but {size[0]} x {size[1]} in its "
                         "compressed data): export it again")
    if b"\xff\xd9" not in frame[-64:]:           # behind the end there may be padding
        raise ValueError("the end of the image is missing")


def _size_in_stream(frame: bytes) -> tuple[int, int]:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream itself declares."""
    def number(at: int, length: int) -> int:
        return int.from_bytes(frame[at:at + length], "big")

    if frame[:4] == b"\xff\x4f\xff\x51":         # JPEG 2000: extent minus offset
        return number(12, 4) - number(20, 4), number(8, 4) - number(16, 4)
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 9 <= len(frame) and frame[at] == 0xFF:
        kind = frame[at + 1]
        if kind == 0xF7 or 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return number(at + 5, 2), number(at + 7, 2)
        at += 1 if kind == 0xFF else 2 + number(at + 2, 2)         # fill bytes may stand before a marker
    raise ValueError("its compressed data have no header")


def _check_rle(frame: bytes, pixels: int) -> None:
    """Refuse runs that add up to more than the picture, before they are laid out in memory."""
    count = int.from_bytes(frame[:4], "little")
    starts = [int.from_bytes(frame[4 * index:4 * index + 4], "little") for index in range(1, min(count, 15) + 1)]
    for start, end in zip(starts, [*starts[1:], len(frame)]):
        at, total, segment = 0, 0, frame[start:end]
        while at < len(segment) - 1:
            head = segment[at]
            total += 257 - head if head > 128 else head + 1 if head < 128 else 0
            at += 2 if head > 128 else head + 2 if head < 128 else 1
            if total > pixels + 256:             # an even length may need a last run
                raise InputError("inflates to far more than its picture: export it again")


def _shown(values: np.ndarray, ds: Dataset) -> np.ndarray:
    """Stored grey values (H, W) to what a viewer shows, uint8."""
    padding = _padding(values, ds)
    deep = ds.BitsStored > 8
    if ds.get("ModalityLUTSequence"):
        values, _ = _through_lut(values, ds.ModalityLUTSequence[0])
    else:
        slope, intercept = _number(ds, "RescaleSlope"), _number(ds, "RescaleIntercept")
        if slope and (slope, intercept or 0) != (1, 0):
            values = values * np.float32(slope) + np.float32(intercept or 0)
            deep = True
    shown = _through_voi(values, ds)
    if shown is None or np.ptp(shown) == 0:
        exposed = values if padding is None or padding.all() else values[~padding]
        low, high = 0, 2 ** ds.BitsStored - 1
        if deep or ds.PixelRepresentation:
            low, high = np.percentile(exposed, 0.5, method="lower"), np.percentile(exposed, 99.5, method="higher")
        shown = (values.astype(np.float32) - np.float32(low)) / max(float(high) - float(low), 1e-6)
    grey = np.round(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    if padding is not None:
        grey[padding] = 0
    return grey


def _padding(values: np.ndarray, ds: Dataset) -> np.ndarray | None:
    """Where the stored values are padding, (H, W) bool; None where the file names no such value."""
    first = _number(ds, "PixelPaddingValue")
    if first is None:
        return None
    last = _number(ds, "PixelPaddingRangeLimit")
    low, high = sorted((first, first if last is None else last))
    return (values >= low) & (values <= high)


def _through_voi(values: np.ndarray, ds: Dataset) -> np.ndarray | None:
    """Values to 0-1 by the first VOI LUT or window (PS3.3 C.11.2); None where there is none that can be applied."""
    if ds.get("VOILUTSequence"):
        shown, bits = _through_lut(np.rint(values).astype(np.int64), ds.VOILUTSequence[0])
        return shown / np.float32(2 ** bits - 1)
    centre, width = _number(ds, "WindowCenter"), _number(ds, "WindowWidth")
    if centre is None or width is None:
        return None
    values = values.astype(np.float32)
    function = str(ds.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -80, 80)))
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function == "LINEAR" and width >= 1:
        if width == 1:
            return (values > centre - 0.5).astype(np.float32)
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    return None


def _through_lut(values: np.ndarray, item: Dataset) -> tuple[np.ndarray, int]:
    """Values through the LUT of a sequence item (PS3.3 C.11.1, C.11.2), and the bits of its entries.

    Not pydicom's own: up to 3.0 its indices overflow where a table of more than 256 entries has 8 bits.
    """
    number, first, bits = (int(value) for value in item.LUTDescriptor)
    number = number or 2 ** 16
    table = item.LUTData
    if isinstance(table, bytes):                 # 8-bit entries may lie two to a word
        table = np.frombuffer(table, np.uint8 if len(table) < 2 * number else "<u2")
    table = np.atleast_1d(np.asarray(table, np.uint16))[:number]
    if len(table) < number or not 8 <= bits <= 16:
        raise ValueError("its lookup table is cut short")
    return table[np.clip(np.asarray(values, np.int64) - first, 0, number - 1)], bits


def _through_palette(values: np.ndarray, ds: Dataset) -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    if "RedPaletteColorLookupTableData" not in ds:
        raise InputError("is a DICOM file with a segmented palette, which is not read: export it as RGB")
    colours = apply_color_lut(values, ds)
    return colours >> 8 if colours.dtype == np.uint16 else colours


def _number(ds: Dataset, name: str) -> float | None:
    """The first value of an element, or None where it is absent, empty or no finite number."""
    value = ds.get(name)
    if value is not None and not isinstance(value, (str, bytes)) and hasattr(value, "__iter__"):
        value = next(iter(value), None)
    try:
        return float(value) if math.isfinite(float(value)) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _clean(value: object) -> str:
    """A value of a file as a sentence may show it."""
    return "".join(character for character in str(value) if character.isprintable())[:64]


def notes(data: bytes, name: str) -> list[str]:
    """What a file says of itself that the model was not made for: modality, body part, view and orientation.

    Args:
        data: the file's content.
        name: what the sentences call the file.

    Returns:
        Sentences, each with `name` in it; none for an upright frontal chest X-ray.

    Raises:
        InputError: as `read`.
    """
    ds = read(data, (*_READ[:-1],))
    said = {tag: _clean(ds.get(tag) or "").upper() for tag in ("Modality", "BodyPartExamined", "ViewPosition")}
    view = "".join(filter(str.isalpha, said["ViewPosition"]))
    orientation = [_clean(value) for value in ds.get("PatientOrientation") or ()]
    odd = []
    if said["Modality"] not in _RADIOGRAPHY:
        odd.append("Modality " + said["Modality"])
    if said["BodyPartExamined"] and not any(word in said["BodyPartExamined"] for word in _CHEST):
        odd.append("BodyPartExamined " + said["BodyPartExamined"])
    if view and not view.startswith(_FRONTAL):
        odd.append("ViewPosition " + said["ViewPosition"])
    if len(orientation) == 2 and [value[:1] for value in orientation] != ["L", "F"]:
        odd.append("PatientOrientation " + "\\".join(orientation))
    sentences = []
    if odd:
        sentences.append(f"{name} is, by its tags, no upright frontal chest X-ray ({', '.join(odd)}): do not trust the "
                         "result.")
    if ds.get("PresentationIntentType") == "FOR PROCESSING":
        sentences.append(f"{name} holds raw detector values (FOR PROCESSING): use the image for presentation.")
    if ds.get("BurnedInAnnotation") == "YES":
        sentences.append(f"{name} may show patient data in its pixels (BurnedInAnnotation YES), and so would pictures "
                         "of it.")
    return sentences
