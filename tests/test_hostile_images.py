"""Damaged, foreign and hostile image files: a sentence for each, at little cost."""
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import image_files
import numpy as np
import pytest
from image_files import chunk, encoded, png, tiff
from PIL import Image

from cxr.data.images import read_bytes, read_file, read_image
from cxr.errors import InputError

picture = pytest.fixture(scope="module")(image_files.picture)
coloured = pytest.fixture(scope="module")(image_files.coloured)
refused = pytest.fixture(image_files.refuser)


# --- damaged files -------------------------------------------------------------------------------------------------

def damaged_files(picture, coloured):
    thumbnail = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + encoded(picture[:20, :20], "JPEG")
    two = Image.fromarray(picture > 120)
    return {
        "png": encoded(picture, "PNG"), "png16": encoded(picture.astype(np.uint16) * 257, "PNG"),
        "pngrgb": encoded(coloured, "PNG"), "pngpalette": encoded(Image.fromarray(picture).convert("P"), "PNG"),
        "jpg": encoded(picture, "JPEG"), "jpgprogressive": encoded(coloured, "JPEG", progressive=True),
        "jpgthumbnail": encoded(coloured, "JPEG", exif=thumbnail),
        "jpgprogressivethumbnail": encoded(coloured, "JPEG", exif=thumbnail, progressive=True),
        "mpo": encoded(coloured, "MPO", save_all=True, append_images=[Image.fromarray(coloured)]),
        "bmp": encoded(picture, "BMP"), "bmp24": encoded(coloured, "BMP"), "bmp1": encoded(two, "BMP"),
        "tif": tiff(picture), "tifz": tiff(picture, deflated=True), "tif16": tiff(picture.astype("<u2") * 257),
        "tif16z": tiff(picture.astype("<u2") * 257, deflated=True), "tifrgb": tiff(coloured, 2),
        "tifrgbz": tiff(coloured, 2, deflated=True), "tiff": tiff(picture.astype("<f4")),
        "tiflzw": encoded(coloured, "TIFF", compression="tiff_lzw"),
        "tifjpg": encoded(picture, "TIFF", compression="jpeg"), "tifg4": encoded(two, "TIFF", compression="group4"),
        "tifcv": cv2.imencode(".tif", coloured)[1].tobytes(),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_cut_short(tmp_path, picture, coloured):
    """No cut ever gives a part of the picture; a TIFF that has lost nothing but padding may still be read."""
    path = tmp_path / "x"
    for name, data in damaged_files(picture, coloured).items():
        path.write_bytes(data)
        whole = read_image(path)
        cuts = {*range(0, len(data), max(1, len(data) // 40)), *range(len(data) - 12, len(data)), 1, 9, 25, 33, 54}
        for cut in cuts:
            path.write_bytes(data[:cut])
            try:
                image = read_image(path)
            except InputError as error:
                assert str(path) in str(error)
            else:
                assert name.startswith(("tif", "mpo")) and (image == whole).all(), (name, cut)


def test_a_tail_of_zeros(tmp_path, picture, coloured):
    """What a broken-off download into a reserved file leaves."""
    path = tmp_path / "x"
    for name, data in damaged_files(picture, coloured).items():
        if name.startswith(("png", "jpg")):
            path.write_bytes(data[:len(data) // 2] + bytes(len(data) - len(data) // 2))
            with pytest.raises(InputError):
                read_image(path)


def test_a_png_with_one_flipped_bit(tmp_path, picture):
    data, rng, path = encoded(picture, "PNG"), np.random.default_rng(0), tmp_path / "x.png"
    for at in {*range(8 * 40), *rng.integers(0, 8 * len(data), 300).tolist()}:
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        with pytest.raises(InputError):
            read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")                  # Pillow's remarks on odd TIFF tags
def test_changed_bytes_never_end_in_another_exception(tmp_path, picture, coloured):
    rng, path = np.random.default_rng(0), tmp_path / "x"
    for data in damaged_files(picture, coloured).values():
        for at in [*rng.integers(0, min(len(data), 200), 15), *rng.integers(0, len(data), 5)]:
            changed = bytearray(data)
            changed[at] = rng.integers(256)
            path.write_bytes(changed)
            try:
                image = read_image(path)
            except InputError:
                continue
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_a_png_whose_data_end_early_under_right_checksums(refused):
    assert "damaged" in refused(png(64, 64, 8, 0, *[bytes(64)] * 20))
    assert "damaged" in refused(png(64, 64, 8, 0, *[bytes(64)] * 63, bytes(63)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    assert "damaged" in refused(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IEND", b""))


# --- foreign files -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("data, said", [
    (b"", "is empty"),
    (b"hello\n", "holds text"), ("Befund: Röntgen\n".encode() * 100, "holds text"),
    (b"<!DOCTYPE html><html></html>", "web page"), (b"\n <html>", "web page"), (b"<svg/>", "web page"),
    (b"%PDF-1.4 \xff", "PDF"), (b"PK\x03\x04" + bytes(30), "zip"), (b"\x1f\x8b\x08" + bytes(30), "gzip"),
    (bytes(128) + b"DICM" + bytes(50), "DICOM"), (b"GIF89a" + bytes(30), "GIF"),
    (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(30), "WebP"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    (bytes(1000), "no image in a format read here"), (b"\x89PMG\r\n\x1a\n" + bytes(100), "first bytes are damaged"),
    (b"\xff\xd8", "first bytes are damaged"), (b"P5 2 2 255 abcd", "holds text"),
], ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("name", ["x.png", "x.dcm"])
def test_foreign_files(refused, data, said, name):
    assert said in refused(data, name)


def test_readable_but_foreign_formats_are_refused(refused, picture):
    for kind in ("GIF", "WEBP", "PPM", "ICO", "TGA", "JPEG2000"):
        refused(encoded(picture, kind), "x.png")


def test_missing_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"missing.png does not exist: check the path"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path / "file" / "x.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_no_permission(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        read_image(path)


@pytest.mark.parametrize("side", [60000, 2 ** 31 - 1])
def test_a_bomb_is_refused_at_once(refused, side):
    start = time.perf_counter()
    assert "too large" in refused(png(side, side, 8, 0))
    assert time.perf_counter() - start < 1


# --- hostile content, from memory and with the limits of a page ---------------------------------------------------

def test_bytes_are_read_as_files_are(picture, tmp_path):
    data = encoded(picture, "PNG")
    (tmp_path / "x.png").write_bytes(data)
    assert (read_bytes(data, "x") == read_image(tmp_path / "x.png")).all() and read_file(tmp_path / "x.png") == data
    with pytest.raises(InputError, match="^upload 7 holds text, not an image"):
        read_bytes(b"hello", "upload 7")


def test_limits_of_the_caller(picture, tmp_path):
    data = encoded(picture, "PNG")                            # 3,000 pixels
    assert read_bytes(data, "x", max_pixels=3000, max_bytes=len(data)).shape == (60, 50, 3)
    with pytest.raises(InputError, match="^x is too large .more than 0 million pixels"):
        read_bytes(data, "x", max_pixels=2999)
    for kind in ("JPEG", "BMP", "TIFF"):
        with pytest.raises(InputError, match="x is too large"):
            read_bytes(encoded(picture, kind), "x", max_pixels=2999)
    with pytest.raises(InputError, match="^x is too large .0 MB, at most 0 are read"):
        read_bytes(data, "x", max_bytes=len(data) - 1)


def test_a_file_of_two_gigabytes_is_not_read(tmp_path):
    with open(tmp_path / "x.png", "wb") as file:
        file.truncate(2 << 30)                                # sparse: takes no room
    start = time.perf_counter()
    with pytest.raises(InputError, match="x.png is too large .2,048 MB, at most 512 are read"):
        read_image(tmp_path / "x.png")
    assert time.perf_counter() - start < 0.5


def many_texts(behind):
    """1 MB of PNG with 150 compressed texts of 7.9 MB each."""
    packed = zlib.compress(bytes(7_900_000), 9)
    texts = b"".join(chunk(b"zTXt", b"k%d\0\0" % index + packed) for index in range(150))
    rows = [bytes(64)] * 64
    if behind:
        return png(64, 64, 8, 0, *rows).replace(chunk(b"IEND", b""), texts + chunk(b"IEND", b""))
    return png(64, 64, 8, 0, *rows, extra=texts)


def inflating(side, million):
    """A PNG whose data go on for so many million bytes."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(1_000_000)) for _ in range(million)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def crowded_tiff():
    """A TIFF with 300 tags that all claim the same 3 MB."""
    plain, room = tiff(np.zeros((64, 64), np.uint8)), 3_000_000
    count, = struct.unpack_from("<H", plain, 8)
    extra = b"".join(struct.pack("<HHII", 40000 + index, 7, room, 8) for index in range(300))
    table = struct.pack("<H", count + 300) + plain[10:10 + 12 * count] + extra + bytes(4)
    return plain[:4] + struct.pack("<I", len(plain) + room) + plain[8:] + bytes(room) + table


def contradictory_tiff():
    """Small by its last ImageWidth, which Pillow believes, huge by its first, which OpenCV does."""
    plain = tiff(np.zeros((8, 8), np.uint8), strips=1)
    count, = struct.unpack_from("<H", plain, 8)
    wide = struct.pack("<HHII", 256, 4, 1, 1_000_000)
    table = struct.pack("<H", count + 1) + wide + plain[10:10 + 12 * count] + bytes(4)
    return plain[:4] + struct.pack("<I", len(plain)) + plain[8:] + table


def endless_scans():
    data = encoded(np.zeros((1000, 1000, 3), np.uint8), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda"):-2]
    return data[:-2] + last * 5000 + b"\xff\xd9"


HOSTILE = {
    "20,000 x 20,000": (lambda: inflating(20000, 400), "too large (more than 100 million pixels)"),
    "data without end": (lambda: inflating(64, 1200), "inflates to far more than its picture"),
    "texts before": (lambda: many_texts(False), None),
    "texts behind": (lambda: many_texts(True), None),
    "international text": (lambda: png(8, 8, 8, 0, *[bytes(8)] * 8, extra=chunk(
        b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(100_000_000)))), None),
    "profile": (lambda: png(8, 8, 8, 0, *[bytes(8)] * 8, extra=chunk(
        b"iCCP", b"x\0\0" + zlib.compress(bytes(100_000_000)))), None),
    "empty parts": (lambda: png(8, 8, 8, 0, *[bytes(8)] * 8, extra=chunk(b"IDAT", b"") * 500_000), "many parts"),
    "tags": (crowded_tiff, "claim more than the file holds"),
    "two widths": (contradictory_tiff, "contradicts itself"),
    "scans": (endless_scans, "more than 100 scans"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_cost_little(name):
    """Refused, or harmless: in a process of its own, whose memory may grow by 64 MB. Time is on a busy machine."""
    make, said = HOSTILE[name]
    data = make()
    code = ("import sys, resource, time; from cxr.data.images import read_bytes; from cxr.errors import InputError\n"
            "data = sys.stdin.buffer.read()\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "before, start = peak(), time.process_time()\n"
            "try: said = str(read_bytes(data, 'x').shape)\n"
            "except InputError as error: said = str(error)\n"
            "print(said, peak() - before, time.process_time() - start, sep='|')")
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, cwd=Path(__file__).parents[1])
    told, grown, seconds = done.stdout.decode().split("|")
    assert (told.endswith(", 3)") if said is None else said in told), told
    assert int(grown) < 64 << (10 if sys.platform != "darwin" else 20) and float(seconds) < 4, (grown, seconds)


@pytest.mark.parametrize("tail", [b"PK\x03\x04" + bytes(50), b"<html><script>alert(1)</script></html>", b"%PDF-1.4"])
def test_polyglots_are_their_picture_alone(picture, tail):
    assert (read_bytes(encoded(picture, "PNG") + tail, "x") == picture[..., None]).all()
    assert read_bytes(encoded(picture, "JPEG") + tail, "x").shape == (60, 50, 3)
