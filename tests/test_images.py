"""Any X-ray file in: every flavour of the four formats, and a sentence for everything else."""
import io
import os
import struct
import subprocess
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cxr.errors import InputError
from cxr.images import find_images, read_bytes, read_file, read_image

GREYS = [0, 5, 100, 255]


@pytest.fixture
def read(tmp_path):
    """`read_image` on a file with these bytes."""
    def from_bytes(data, name="x.png"):
        path = tmp_path / name
        path.write_bytes(data)
        return read_image(path)
    return from_bytes


@pytest.fixture
def refused(tmp_path):
    """The sentence with which a file of these bytes is refused; it must name the file."""
    def check(data, name="x.png"):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError) as error:
            read_image(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        return str(error.value)
    return check


# --- files built by hand -------------------------------------------------------------------------------------------

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


@pytest.fixture(scope="module")
def picture():
    """(60, 50) uint8: smooth with some noise, every corner different."""
    rows, columns = np.mgrid[:60, :50]
    noise = np.random.default_rng(0).integers(0, 20, (60, 50))
    return (rows * 2 + columns * 2 + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def coloured(picture):
    return np.dstack([picture, 255 - picture, picture // 2])


def grey(values):
    return [[value] * 3 for value in values]


# --- PNG -----------------------------------------------------------------------------------------------------------

TRANSPARENT = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60, 255, 0, 1])) + chunk(b"tRNS", bytes([0, 255, 128]))


@pytest.mark.parametrize("data, expected", [
    (png(8, 1, 1, 0, bytes([0b01010011])), grey([0, 255, 0, 255, 0, 0, 255, 255])),
    (png(4, 1, 2, 0, bytes([0b00011011])), grey([0, 85, 170, 255])),
    (png(4, 1, 4, 0, bytes([0x05, 0xaf])), grey([0, 85, 170, 255])),
    (png(4, 1, 8, 0, bytes(GREYS)), grey(GREYS)),
    (png(4, 1, 16, 0, shorts(*(257 * value for value in GREYS))), grey(GREYS)),
    (png(4, 1, 8, 4, bytes([0, 255, 100, 255, 200, 128, 200, 0])), grey([0, 100, 100, 0])),
    (png(4, 1, 16, 4, shorts(0, 65535, 25700, 65535, 51400, 32768, 65535, 0)), grey([0, 100, 100, 0])),
    (png(2, 1, 8, 2, bytes([1, 2, 3, 250, 100, 50])), [[1, 2, 3], [250, 100, 50]]),
    (png(2, 1, 16, 2, shorts(257, 514, 771, 65535, 25700, 0)), [[1, 2, 3], [255, 100, 0]]),
    (png(2, 1, 8, 6, bytes([1, 2, 3, 255, 250, 100, 50, 128])), [[1, 2, 3], [125, 50, 25]]),
    (png(2, 1, 16, 6, shorts(257, 514, 771, 65535, 65535, 25700, 0, 32768)), [[1, 2, 3], [128, 50, 0]]),
    (png(3, 1, 2, 3, bytes([0b00011000]), extra=TRANSPARENT[:21]), [[10, 20, 30], [40, 50, 60], [255, 0, 1]]),
    (png(3, 1, 8, 3, bytes([0, 1, 2]), extra=TRANSPARENT[:21]), [[10, 20, 30], [40, 50, 60], [255, 0, 1]]),
    (png(3, 1, 8, 3, bytes([0, 1, 2]), extra=TRANSPARENT), [[0, 0, 0], [40, 50, 60], [128, 0, 1]]),
], ids=["1", "2", "4", "8", "16", "8 alpha", "16 alpha", "RGB", "RGB 16", "RGBA", "RGBA 16", "palette 2", "palette 8",
        "palette transparent"])
def test_png(read, data, expected):
    image = read(data)
    assert image.dtype == np.uint8 and image.shape == (1, len(expected), 3)
    assert image[0].tolist() == expected


def test_png_rows_are_not_mixed_up(read, picture, coloured):
    assert (read(encoded(picture, "PNG")) == picture[..., None]).all()
    assert (read(encoded(coloured, "PNG")) == coloured).all()
    deep = np.dstack([coloured, np.full(picture.shape, 255, np.uint8)])
    assert (read(encoded(deep, "PNG")) == coloured).all()


def test_interlaced_png(read):
    # Adam7 on 3 x 3: passes 1 (0,0), 4 (0,2), 5 (2,0)(2,2), 6 (0,1)(2,1), 7 row 1.
    passes = [bytes(values) for values in ([1], [3], [7, 9], [2], [8], [4, 5, 6])]
    data = png(3, 3, 8, 0, *passes, interlaced=1)
    assert read(data)[..., 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("top, depth", [(200, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (3000, 12), (4096, 14),
                                        (16384, 16), (65535, 16)])
def test_sixteen_bits_are_scaled_by_the_depth_in_use(read, top, depth):
    full = 2 ** depth - 1
    image = read(png(3, 1, 16, 0, shorts(0, top // 2, top)))
    assert image[0, :, 0].tolist() == [0, round(top // 2 * 255 / full), round(top * 255 / full)]


def test_black_sixteen_bit_image_stays_black(read):
    assert not read(png(2, 1, 16, 0, shorts(0, 0))).any()


def test_alpha_has_no_say_in_the_depth_of_the_colours(read):
    image = read(png(2, 1, 16, 4, shorts(4095, 65535, 4095, 0)))                # 12 bits under a 16-bit alpha
    assert image[0].tolist() == grey([255, 0])


# --- JPEG, BMP, TIFF -----------------------------------------------------------------------------------------------

def test_jpeg(read, picture, coloured):
    for image in (picture, coloured):
        for options in ({}, {"progressive": True}, {"optimize": True}):
            got = read(encoded(image, "JPEG", quality=98, subsampling=0, **options)) if image.ndim == 3 else read(
                encoded(image, "JPEG", quality=98, **options))
            assert got.shape == (60, 50, 3)
            assert np.abs(got.astype(int) - image.reshape(60, 50, -1)).mean() < 2


def test_cmyk_jpeg(read):
    got = read(encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG"))    # cyan
    assert np.abs(got.astype(int) - [0, 255, 255]).max() <= 2


def turned(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_jpeg_orientation_is_applied(read, kind):
    quarters = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 24), np.uint8))
    options = {"save_all": True, "append_images": [Image.fromarray(quarters)]} if kind == "MPO" else {}
    for orientation, expected in ((1, [[0, 80], [160, 240]]), (3, [[240, 160], [80, 0]]), (6, [[160, 0], [240, 80]]),
                                  (8, [[80, 240], [0, 160]])):
        got = read(encoded(quarters, kind, quality=95, exif=turned(orientation), **options))
        assert got.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
        height, width = got.shape[0] // 4, got.shape[1] // 4
        corners = got[[height, 3 * height]][:, [width, 3 * width], 0]
        assert np.abs(corners.astype(int) - expected).max() <= 3, orientation


def test_bmp(read, picture, coloured):
    assert (read(encoded(picture, "BMP")) == picture[..., None]).all()
    assert (read(encoded(coloured, "BMP")) == coloured).all()
    two = picture > 120
    assert (read(encoded(Image.fromarray(two), "BMP")) == 255 * two[..., None]).all()
    assert (read(encoded(Image.fromarray(picture).convert("P"), "BMP")) == picture[..., None]).all()


def test_bmp_with_an_empty_fourth_byte(read):
    """Windows leaves it zero: that is no transparency."""
    pixels = bytes([1, 2, 3, 0, 40, 50, 60, 0])
    data = b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + struct.pack(
        "<IiiHHIIiiII", 40, 2, 1, 1, 32, 0, len(pixels), 0, 0, 0, 0) + pixels
    assert read(data)[0].tolist() == [[3, 2, 1], [60, 50, 40]]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff(read, picture, coloured, compression):
    assert (read(encoded(picture, "TIFF", compression=compression)) == picture[..., None]).all()
    assert (read(encoded(coloured, "TIFF", compression=compression)) == coloured).all()
    deep = picture.astype(np.uint16) * 257
    assert (read(encoded(deep, "TIFF", compression=compression)) == picture[..., None]).all()
    two = picture > 120
    assert (read(encoded(Image.fromarray(two), "TIFF", compression=compression)) == 255 * two[..., None]).all()
    assert (read(encoded(Image.fromarray(picture).convert("P"), "TIFF", compression=compression))
            == picture[..., None]).all()


def test_tiff_with_jpeg_and_fax_inside(read, picture):
    got = read(encoded(picture, "TIFF", compression="jpeg"))
    assert np.abs(got.astype(int) - picture[..., None]).mean() < 6
    two = picture > 120
    assert (read(encoded(Image.fromarray(two), "TIFF", compression="group4")) == 255 * two[..., None]).all()


@pytest.mark.parametrize("deflated", [False, True])
def test_tiff_in_strips(read, picture, coloured, deflated):
    for pixels in (picture, picture.astype("<u2") * 257, coloured, coloured.astype("<u2") * 257):
        got = read(tiff(pixels, 2 if pixels.ndim == 3 else 1, deflated))
        assert (got == (coloured if pixels.ndim == 3 else picture[..., None])).all()


def test_float_tiff_is_scaled_by_its_maximum(read):
    values = np.array([[0, 0.25, 0.5]], "<f4")
    for factor in (1, 1000):
        assert read(tiff(values * factor))[0, :, 0].tolist() == [0, 128, 255]
    assert not read(tiff(values * 0)).any()


@pytest.mark.parametrize("kind", ["<u1", "<u2", "<f4"])
def test_white_is_zero_tiff_is_turned_round(read, kind):
    """Negatives, as MONOCHROME1 radiographs are exported: lungs must come out dark at every depth."""
    values = np.array([[0, 51, 255]]).astype(kind) * (257 if kind == "<u2" else 1)
    assert read(tiff(values, photometric=0))[0, :, 0].tolist() == [255, 204, 0]
    assert read(tiff(values, photometric=1))[0, :, 0].tolist() == [0, 51, 255]


def test_undefined_and_negative_pixels_are_refused(refused):
    assert "NaN" in refused(tiff(np.array([[1, np.nan]], "<f4")), "x.tif")
    assert "NaN" in refused(tiff(np.array([[1, np.inf]], "<f4")), "x.tif")
    assert "negative" in refused(tiff(np.array([[1, -1]], "<f4")), "x.tif")


def test_several_pages_are_refused(refused, picture):
    pages = [Image.fromarray(picture)] * 2
    assert "holds several images" in refused(encoded(picture, "TIFF", save_all=True, append_images=pages), "x.tif")


# --- real files, and paths -----------------------------------------------------------------------------------------

def test_odd_real_files(data_dir):
    names = sorted(path for path in (data_dir / "odd").iterdir() if path.suffix != ".dcm")
    assert len(names) >= 8
    for path in names:
        image = read_image(path)
        width, height = map(int, path.stem.rsplit("_", 1)[1].split("x"))
        assert image.shape == (height, width, 3) and image.dtype == np.uint8, path
        assert image.min() < 40 and image.max() > 180 and 30 < image.mean() < 225, path
        if "gray" in path.name:
            assert (image == image[..., :1]).all()
            with Image.open(path) as other:
                assert np.abs(image[..., 0].astype(int) - np.asarray(other.convert("L"))).max() <= 2, path


@pytest.mark.parametrize("name", ["ä ö ü.png", "胸部 X 線.png", "a 'b' \"c\".png", "no_suffix", "wrong.jpg", "🫁.PNG",
                                  "-x.png", "%s{}.png"])
def test_paths(read, picture, name):
    assert (read(encoded(picture, "PNG"), name) == picture[..., None]).all()


def test_text_path(tmp_path, picture):
    (tmp_path / "x.png").write_bytes(encoded(picture, "PNG"))
    assert read_image(str(tmp_path / "x.png")).shape == (60, 50, 3)


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


def test_trailing_bytes_do_no_harm(read, picture):
    assert (read(encoded(picture, "PNG") + b"appended") == picture[..., None]).all()
    assert read(encoded(picture, "JPEG") + bytes(100), "x.jpg").shape == (60, 50, 3)


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
    code = ("import sys, resource, time; from cxr.images import read_bytes; from cxr.errors import InputError\n"
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


# --- threads -------------------------------------------------------------------------------------------------------

def test_threads_leave_the_warnings_alone(tmp_path, picture):
    """`warnings.catch_warnings` in two threads at once can leave every warning of the process switched off."""
    path = tmp_path / "x.png"
    path.write_bytes(encoded(picture, "PNG"))
    before, interval = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            images = list(pool.map(read_image, [path] * 300))
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == before
    assert all((image == images[0]).all() for image in images)


# --- finding images ------------------------------------------------------------------------------------------------

def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*inputs):
    return [(str(path), name.as_posix()) for path, name in find_images(inputs)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_its_images_in_order(here):
    touch(here, "a/b2.png", "a/b10.PNG", "a/sub/deep/x.JpEg", "a/notes.txt", "a/scores.csv", "a/c.tiff", "a/sub/a.bmp",
          "a/sub/.b.png.0.tmp", "a/folder.png/inner.jpg", "a/d.dcm", "a/nothing")
    names = ["b10.PNG", "b2.png", "c.tiff", "d.dcm", "folder.png/inner.jpg", "sub/a.bmp", "sub/deep/x.JpEg"]
    assert found("a") == [(f"a/{name}", name) for name in names]
    assert [name for _, name in found(here / "a")] == names


def test_files_stand_for_themselves(here):
    touch(here, "z.png", "a/y", "b.txt")
    assert found("z.png", "a/y", Path("b.txt")) == [("z.png", "z.png"), ("a/y", "y"), ("b.txt", "b.txt")]


def test_equal_names_get_their_folders(here):
    touch(here, "top/p1/day/x.png", "top/p2/day/x.png", "top/p2/day/y.png")
    assert found("top/p1/day", "top/p2/day") == [
        ("top/p1/day/x.png", "p1/day/x.png"), ("top/p2/day/x.png", "p2/day/x.png"), ("top/p2/day/y.png", "y.png")]


@pytest.mark.parametrize("inputs", [("x.png", "../e/x.png"), (".", "../e"), ("../d/x.png", "../e/../e/x.png"),
                                    ("sub/../x.png", "../e")])
def test_names_stay_below_the_folder_of_results(here, monkeypatch, inputs):
    """A name with `..` in it would write the picture outside --save_dir."""
    touch(here, "d/x.png", "d/sub/z.txt", "e/x.png")
    monkeypatch.chdir(here / "d")
    assert [name for _, name in found(*inputs)] == ["d/x.png", "e/x.png"]


def test_the_same_file_is_found_once(here):
    touch(here, "a/x.png", "a/y.png")
    assert found("a/x.png", "a", here / "a" / "y.png", "./a/../a/x.png") == [("a/x.png", "x.png"), ("a/y.png", "y.png")]


def test_nothing_to_find(here):
    touch(here, "empty/notes.txt")
    with pytest.raises(InputError, match="empty holds no images"):
        find_images(["empty"])
    with pytest.raises(InputError, match="missing does not exist"):
        find_images(["empty/notes.txt", "missing"])
    assert find_images([]) == []
