"""Any X-ray file in: every flavour of the four formats."""
import struct
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import image_files
import numpy as np
import pytest
from image_files import chunk, encoded, png, shorts, tiff
from PIL import Image

from cxr.data.images import read_image

GREYS = [0, 5, 100, 255]

picture = pytest.fixture(scope="module")(image_files.picture)
coloured = pytest.fixture(scope="module")(image_files.coloured)
refused = pytest.fixture(image_files.refuser)


@pytest.fixture
def read(tmp_path):
    """`read_image` on a file with these bytes."""
    def from_bytes(data, name="x.png"):
        path = tmp_path / name
        path.write_bytes(data)
        return read_image(path)
    return from_bytes


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


def test_trailing_bytes_do_no_harm(read, picture):
    assert (read(encoded(picture, "PNG") + b"appended") == picture[..., None]).all()
    assert read(encoded(picture, "JPEG") + bytes(100), "x.jpg").shape == (60, 50, 3)


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
