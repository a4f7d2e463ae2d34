"""DICOM that is no frontal chest X-ray, damaged or hostile: a sentence for each, at little cost."""
import io
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import dicom_files
import numpy as np
import pytest
from dicom_files import QUIET, ROW, compressed, dicom, greys, refused
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from cxr.data.images import image_notes, read_bytes
from cxr.errors import InputError

pytestmark = QUIET


@pytest.fixture(scope="module")
def deep():
    return dicom_files.deep()


def test_several_frames_are_refused():
    data = dicom(np.zeros((8, 4), np.uint8), NumberOfFrames=2, Rows=4)
    assert "of 2 frames: export the one you want" in refused(data)


def test_no_picture():
    report = dicom(ROW, 12, without=["PixelData"], SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    assert "without a picture (Basic Text SR Storage)" in refused(report)


@pytest.mark.parametrize("name", ["Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"])
def test_missing_tags_are_named(name):
    assert f"lacks {name}, without which" in refused(dicom(ROW, 12, without=[name]))


def test_tags_that_can_be_done_without():
    without = ["SamplesPerPixel", "BitsStored", "HighBit", "PixelRepresentation", "PatientName"]
    assert greys(dicom(ROW, 12, without=without)) == [0, 62, 125, 255]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_cut_short(deep, syntax):
    """No cut ever gives a part of the picture; what follows it (an end mark, zeros) may be missing."""
    data = compressed(deep, syntax)
    whole, shown = read_bytes(data, "x"), 0
    for cut in {*range(0, len(data), 97), *range(len(data) - 20, len(data))}:
        try:
            image = read_bytes(data[:cut], "x.dcm")
        except InputError as error:
            assert str(error).startswith("x.dcm ")
        else:
            shown += 1
            assert len(data) - cut < 20 and (image == whole).all(), cut
    assert shown < 20


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless,
                                    JPEG2000Lossless])
def test_changed_bytes_never_end_in_another_exception(deep, syntax):
    rng, data = np.random.default_rng(1), compressed(deep, syntax)
    head = data.find(b"\xe0\x7f\x10\x00")
    for index in range(150):
        changed = bytearray(data)
        for _ in range(3):
            changed[rng.integers(132, head + 100) if index % 2 else rng.integers(132, len(data))] = rng.integers(256)
        try:
            image = read_bytes(bytes(changed), "x")
            assert all(note.startswith("x ") for note in image_notes(bytes(changed), "x"))
        except InputError:
            continue
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_without_pydicom(monkeypatch):
    data = dicom(ROW, 12)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydicom"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "install the extra dicom (`pip install pydicom pyjpegls`)" in refused(data)


def test_the_process_stays_silent(tmp_path):
    """pydicom's own remarks would print values of a damaged file, which can be the patient's name."""
    data = dicom(ROW, 12, SpecificCharacterSet="ISO_IR 6")
    (tmp_path / "x.dcm").write_bytes(data.replace(b"ISO_IR 6", b"Doe^Jane"))
    code = f"from cxr.data.images import read_image; read_image({str(tmp_path / 'x.dcm')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert "Doe" not in done.stdout + done.stderr, done.stderr


# --- hostile content -----------------------------------------------------------------------------------------------

def quickly(data, most=60e6, seconds=10, **limits):
    """The sentence of a refusal that takes neither long nor much memory."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        said = refused(data, **limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most and time.perf_counter() - start < seconds, (peak, time.perf_counter() - start)
    return said


def test_the_size_is_judged_before_the_pixels():
    values = np.zeros((4, 4), np.uint8)
    assert "too large (more than 100 million" in quickly(dicom(values, Rows=20000, Columns=20000))
    assert "too large (more than 10 million" in quickly(dicom(values, Rows=4000, Columns=4000), max_pixels=10_000_000)
    assert "too large" in quickly(dicom(values, SamplesPerPixel=60000, Rows=9000, Columns=9000, photometric="RGB"))


def test_a_codestream_of_another_size():
    from PIL import Image
    file = io.BytesIO()
    Image.new("L", (5000, 5000)).save(file, "JPEG2000", no_jp2=True)
    data = dicom(np.zeros((4, 4), np.uint8), syntax=JPEG2000Lossless, pixels=encapsulate([file.getvalue()]))
    assert "contradicts itself (4 x 4 pixels, but 5000 x 5000" in quickly(data)


def test_runs_that_inflate():
    segment = b"\x81\x00" * 2_000_000                         # 128 zeros each: 256 MB
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + segment
    data = dicom(np.zeros((64, 64), np.uint8), syntax=RLELossless, pixels=encapsulate([frame]))
    assert "inflates to far more" in quickly(data)


def test_deflated_files_are_not_inflated():
    assert "deflated" in quickly(dicom(ROW, 12).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99", 1)
                                 .replace(b"UI\x14\x001.2.840.10008.1.2.1.99", b"UI\x16\x001.2.840.10008.1.2.1.99"))


def test_endless_elements():
    plain = dicom(ROW, 12)
    at = plain.find(b"\x10\x00\x10\x00PN")
    many = b"".join(struct.pack("<HH2sH", 9, 0x1000 + index % 0xE000, b"LO", 0) for index in range(300_000))
    assert "needlessly many elements" in quickly(plain[:at] + many + plain[at:])
    items = struct.pack("<HH2sHI", 9, 0x1001, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 300_000
    assert "needlessly many elements" in quickly(plain[:at] + items + plain[at:], most=250e6)
    centre = struct.pack("<HH2sHI", 0x28, 0x1050, b"UN", 0, 4_000_000) + b"1\\" * 2_000_000
    at = plain.find(b"\xe0\x7f\x10\x00")
    assert "needlessly long element" in quickly(plain[:at] + centre + plain[at:])
