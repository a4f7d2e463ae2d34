"""DICOM in: every value by hand, and a sentence for what is no frontal chest X-ray or cannot be read."""
import base64
import io
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from cxr.errors import InputError
from cxr.images import find_images, image_notes, read_bytes, read_image

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom: pip install pydicom pyjpegls")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

# Under pytest this project's own filter is not in force; see `test_the_process_stays_silent`.
pytestmark = [pytest.mark.filterwarnings(f"ignore::UserWarning:pydicom.{name}")
              for name in ("valuerep", "charset", "filereader", "pixels.decoders.rle")]
ROW = np.array([[0, 1000, 2000, 4095]], np.uint16)


def dicom(values, bits=None, photometric="MONOCHROME2", syntax=ExplicitVRLittleEndian, pixels=None, without=(), **tags):
    """The bytes of a DICOM file with these stored values; `pixels` are compressed data in their place."""
    bits = bits or 8 * values.itemsize
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3.4"
    ds.PatientName, ds.PatientID, ds.StudyInstanceUID = "Doe^Jane", "P-77", "1.2.3.5"
    ds.Rows, ds.Columns = values.shape[:2]
    ds.SamplesPerPixel = 1 if values.ndim == 2 else values.shape[2]
    if values.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * values.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in tags.items():
        setattr(ds, name, value)
    data = values.astype(values.dtype.newbyteorder(">")) if syntax == ExplicitVRBigEndian else values
    ds.PixelData = data.tobytes() + b"\0" * (data.nbytes % 2) if pixels is None else pixels
    ds["PixelData"].VR = "OB" if pixels is not None or bits <= 8 else "OW"
    ds["PixelData"].is_undefined_length = pixels is not None
    if pixels is None and syntax in (RLELossless, JPEGLSLossless):
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.compress(syntax)
    for name in without:
        delattr(ds, name)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def greys(data):
    """The grey values of the first row."""
    image = read_bytes(data, "x.dcm")
    assert image.dtype == np.uint8 and image.ndim == 3 and (image == image[..., :1]).all()
    return image[0, :, 0].tolist()


def refused(data, **limits):
    with pytest.raises(InputError) as error:
        read_bytes(data, "x.dcm", **limits)
    said = str(error.value)
    assert said.startswith("x.dcm ") and "\n" not in said and said.endswith(".") and not said.endswith("..")
    return said


def lut(entries, first, bits, vr="US"):
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.add_new("LUTData", vr, entries if vr == "US" else np.asarray(entries, "<u2").tobytes())
    return Sequence([item])


# --- values --------------------------------------------------------------------------------------------------------

def test_eight_bits_are_taken_as_they_are():
    assert greys(dicom(np.array([[10, 20, 200, 250]], np.uint8))) == [10, 20, 200, 250]


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_deep_values_without_a_window_are_stretched(bits):
    top = 2 ** bits - 1
    values = np.array([[top // 4, top // 2, top]], np.uint16)
    assert greys(dicom(values, bits)) == [0, round(255 * (top // 2 - top // 4) / (top - top // 4)), 255]


def test_the_stretch_leaves_out_the_outermost_half_percent():
    values = np.tile(np.linspace(1000, 2000, 1000).astype(np.uint16), (20, 1))
    values[0, :50] = 4095                                     # 0.25 % of the pixels: a lead marker
    values[1, :50] = 0
    image = read_bytes(dicom(values, 12), "x")[..., 0]
    assert image[5, 0] == 0 and image[5, -1] == 255 and 126 <= image[5, 500] <= 129


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_window(syntax):
    # PS3.3 C.11.2.1.2: 0 up to c - 0.5 - (w - 1) / 2 = 995, full above 3004, linear between.
    data = dicom(np.array([[0, 995, 1999, 2000, 3004, 4095]], np.uint16), 12, syntax=syntax, WindowCenter=2000,
                 WindowWidth=2010)
    assert greys(data) == [0, 0, 127, 128, 255, 255]


def test_a_narrow_window():
    """One less than its width lies between black and white."""
    values = np.array([[126, 127, 128, 129]], np.uint8)
    assert greys(dicom(values, WindowCenter=128, WindowWidth=4)) == [0, 85, 170, 255]


def test_the_first_of_several_windows():
    data = dicom(ROW, 12, WindowCenter=[500.5, 3000], WindowWidth=[1001, 2])
    assert greys(data) == [0, 255, 255, 255]
    assert greys(dicom(ROW, 12, WindowCenter=1000.5, WindowWidth=1)) == [0, 0, 255, 255]


def test_other_window_functions():
    data = {"WindowCenter": 2000, "WindowWidth": 2000}
    assert greys(dicom(ROW, 12, VOILUTFunction="LINEAR_EXACT", **data)) == [0, 0, 128, 255]
    sigmoid = [round(255 / (1 + np.exp(-4 * (value - 2000) / 2000))) for value in ROW[0].tolist()]
    assert greys(dicom(ROW, 12, VOILUTFunction="SIGMOID", **data)) == sigmoid
    assert greys(dicom(ROW, 12, VOILUTFunction="WHATEVER", **data)) == [0, 62, 125, 255]         # stretched


@pytest.mark.parametrize("tags", [{"WindowCenter": 2000, "WindowWidth": 0}, {"WindowCenter": 2000},
                                  {"WindowCenter": 60000, "WindowWidth": 100}, {"WindowWidth": 100}])
def test_a_window_that_shows_nothing_is_left_aside(tags):
    assert greys(dicom(ROW, 12, **tags)) == [0, 62, 125, 255]


def test_rescale_comes_before_the_window():
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1000.5, "WindowWidth": 2001}
    assert greys(dicom(np.array([[500, 1000, 1500]], np.uint16), 12, **tags)) == [0, 128, 255]


def test_signed_values():
    values = np.array([[-1000, 0, 1000]], np.int16)
    assert greys(dicom(values, 16)) == [0, 128, 255]
    assert greys(dicom(values, 16, WindowCenter=0.5, WindowWidth=2001)) == [0, 128, 255]
    assert greys(dicom(values, 12)) == [0, 128, 255]


def test_monochrome1_is_turned_round():
    assert greys(dicom(np.array([[0, 55, 255]], np.uint8), photometric="MONOCHROME1")) == [255, 200, 0]
    data = dicom(ROW, 12, "MONOCHROME1", WindowCenter=1000.5, WindowWidth=2001)
    assert greys(data) == [255, 127, 0, 0]


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_voi_lut_sequence_goes_before_a_window(vr):
    values = np.array([[0, 5, 6, 7, 200]], np.uint16)
    data = dicom(values, 12, VOILUTSequence=lut([0, 100, 4095], 5, 12, vr), WindowCenter=1, WindowWidth=2)
    assert greys(data) == [0, 0, 6, 255, 255]                 # below the first entry: the first; above: the last


def test_long_lut_of_eight_bits():
    """Its 4,096 indices do not fit into the 8 bits of its entries."""
    data = dicom(ROW, 12, VOILUTSequence=lut([value >> 4 for value in range(4096)], 0, 8))
    assert greys(data) == [0, 62, 125, 255]
    packed = Dataset()
    packed.LUTDescriptor = [4096, 0, 8]
    packed.add_new("LUTData", "OW", bytes(value >> 4 for value in range(4096)))
    assert greys(dicom(ROW, 12, VOILUTSequence=Sequence([packed]))) == [0, 62, 125, 255]


def test_lut_of_65536_entries():
    values = np.array([[0, 32768, 65535]], np.uint16)
    data = dicom(values, 16, VOILUTSequence=lut(np.arange(65536)[::-1].tolist(), 0, 16, "OW"))
    assert greys(data) == [255, 127, 0]


def test_modality_lut():
    values = np.array([[0, 1, 2]], np.uint16)
    tags = {"ModalityLUTSequence": lut([100, 300, 500], 0, 12), "WindowCenter": 300.5, "WindowWidth": 401}
    assert greys(dicom(values, 12, **tags)) == [0, 128, 255]


def test_a_short_lut_is_refused():
    item = lut([1, 2, 3], 0, 12)
    item[0].LUTDescriptor = [4, 0, 12]
    assert "lookup table is cut short" in refused(dicom(ROW, 12, VOILUTSequence=item))


def test_unused_high_bits_are_no_values():
    overlay = ROW | np.uint16(0x8000)
    assert greys(dicom(overlay, 12)) == [0, 62, 125, 255]


def test_padding_is_black_and_has_no_say():
    values = np.array([[0, 1000, 1500, 2000]], np.uint16)
    assert greys(dicom(values, 12, PixelPaddingValue=0)) == [0, 0, 128, 255]
    assert greys(dicom(values, 12, "MONOCHROME1", PixelPaddingValue=0)) == [0, 255, 127, 0]
    assert greys(dicom(values, 12, PixelPaddingValue=0, PixelPaddingRangeLimit=1000)) == [0, 0, 0, 255]


def test_a_constant_image_stays_finite():
    assert greys(dicom(np.full((1, 4), 7, np.uint16), 12)) == [0] * 4


# --- colours -------------------------------------------------------------------------------------------------------

COLOURS = np.array([[[255, 0, 0], [0, 128, 0], [10, 20, 30]]], np.uint8)


def test_rgb_and_planes():
    assert read_bytes(dicom(COLOURS, photometric="RGB"), "x").tolist() == COLOURS.tolist()
    planes = np.ascontiguousarray(COLOURS.transpose(2, 0, 1)).tobytes()
    data = dicom(COLOURS, photometric="RGB", PlanarConfiguration=1)
    at = data.rfind(COLOURS.tobytes())
    assert read_bytes(data[:at] + planes + data[at + len(planes):], "x").tolist() == COLOURS.tolist()
    deep = dicom(COLOURS.astype(np.uint16) * 257, 16, "RGB")
    assert read_bytes(deep, "x").tolist() == COLOURS.tolist()


def test_ybr():
    image = read_bytes(dicom(np.array([[[76, 85, 255], [128, 128, 128]]], np.uint8), photometric="YBR_FULL"), "x")
    assert np.abs(image[0].astype(int) - [[254, 0, 0], [128, 128, 128]]).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(bits):
    tags, dtype = {}, f"<u{bits // 8}"
    for index, colour in enumerate(("Red", "Green", "Blue")):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, bits]
        entries = np.array([10, 20, 30, 40], dtype) + np.array(index, dtype)
        tags[f"{colour}PaletteColorLookupTableData"] = (entries << (bits - 8)).astype(dtype).tobytes()
    data = dicom(np.array([[0, 3]], np.uint8), photometric="PALETTE COLOR", **tags)
    assert read_bytes(data, "x")[0].tolist() == [[10, 11, 12], [40, 41, 42]]
    assert "palette" in refused(dicom(np.array([[0, 3]], np.uint8), photometric="PALETTE COLOR"))


def test_other_colours_are_refused():
    assert "in the colours HSV, which are not read" in refused(dicom(COLOURS, photometric="HSV"))


# --- compressed ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def deep():
    rng = np.random.default_rng(0)
    return (np.add.outer(np.arange(64), np.arange(48)) * 30 + rng.integers(0, 200, (64, 48))).astype(np.uint16)


def compressed(values, syntax, bits=12):
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls", reason="needs pyjpegls")
    if syntax != JPEG2000Lossless:
        return dicom(values, bits, syntax=syntax, WindowCenter=2048, WindowWidth=4096)
    from PIL import Image
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG2000", irreversible=False, no_jp2=True)
    return dicom(values, 16, syntax=syntax, pixels=encapsulate([file.getvalue()]), WindowCenter=2048, WindowWidth=4096)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_compression_changes_nothing(deep, syntax):
    plain = read_bytes(dicom(deep, 12, WindowCenter=2048, WindowWidth=4096), "x")
    assert len(np.unique(plain)) > 100
    assert (read_bytes(compressed(deep, syntax), "x") == plain).all()


# 6 x 8 values of 300 (row + column), 12 bits, predictor 1
LOSSLESS = base64.b85decode("|JeV-01FTR1^@^F0TBTI!~hil0RaF20000000000000002@wC<00;pA00961lEkqrOA^GfEK3r^u`Ejx#IY<(62!4A"
                            "OA^GfEK3r^u`Ejx#IY<(62!4AOA^GfEK3r^u`Ejx#IY>@*#H")


def lossless_jpeg():
    values = np.add.outer(np.arange(6), np.arange(8)).astype(np.uint16) * 300
    return values, dicom(values, 12, syntax=JPEGLosslessSV1, pixels=encapsulate([LOSSLESS]))


def test_lossless_jpeg():
    pytest.importorskip("libjpeg", reason="needs pylibjpeg and pylibjpeg-libjpeg, which is GPL")
    values, data = lossless_jpeg()
    assert (read_bytes(data, "x") == read_bytes(dicom(values, 12), "x")).all()


def test_a_missing_reader_is_named(monkeypatch):
    monkeypatch.setattr("cxr.dicom._READERS", ("pydicom",))
    assert "`pip install pylibjpeg pylibjpeg-libjpeg`" in refused(lossless_jpeg()[1])
    for syntax, said in ((JPEG2000Lossless, "`pip install pylibjpeg pylibjpeg-openjpeg`"),
                         ("1.2.840.10008.1.2.4.81", "`pip install pyjpegls`"),
                         ("1.2.840.10008.1.2.4.100", "compressed as MPEG2")):
        assert said in refused(dicom(np.zeros((4, 4), np.uint8), syntax=syntax, pixels=encapsulate([b"data"])))


def test_baseline_jpeg():
    from PIL import Image
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (32, 1))
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "JPEG", quality=95)
    got = read_bytes(dicom(ramp, syntax=JPEGBaseline8Bit, pixels=encapsulate([file.getvalue()])), "x")[..., 0]
    assert np.abs(got.astype(int) - ramp).max() <= 3


# --- what is no image, or a damaged one ----------------------------------------------------------------------------

def test_real_file(data_dir):
    """A film tagged MONOCHROME1 after the fact ("fake"): what it stores is shown turned round, as every viewer does."""
    path = data_dir / "odd" / "Fake_MONOHR1.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("error")                        # CHEST, PA: nothing to say
        image = read_image(path)
    stored = pydicom.dcmread(path).pixel_array
    assert image.shape == (1024, 1024, 3) and stored.std() > 40
    assert np.abs(image[..., 1] - (255.0 - stored)).max() <= 3              # decoders of JPEG differ by rounding
    assert path in [found for found, _ in find_images([data_dir / "odd"])]


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
    code = f"from cxr.images import read_image; read_image({str(tmp_path / 'x.dcm')!r})"
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


# --- notes, and finding files --------------------------------------------------------------------------------------

@pytest.mark.parametrize("tags, said", [
    ({"ViewPosition": "LL"}, "ViewPosition LL"), ({"ViewPosition": "LATERAL"}, "ViewPosition LATERAL"),
    ({"BodyPartExamined": "HAND"}, "BodyPartExamined HAND"), ({"Modality": "CT"}, "Modality CT"),
    ({"PatientOrientation": ["A", "F"]}, r"PatientOrientation A\F"),
    ({"PatientOrientation": ["R", "F"]}, r"PatientOrientation R\F"),
    ({"PresentationIntentType": "FOR PROCESSING"}, "raw detector values"),
    ({"BurnedInAnnotation": "YES"}, "may show patient data"),
])
def test_notes(tmp_path, tags, said):
    data = dicom(np.array([[0, 255]], np.uint8), **tags)
    note, = image_notes(data, "x.dcm")
    assert note.startswith("x.dcm ") and said in note and "Doe" not in note and "P-77" not in note
    (tmp_path / "x.dcm").write_bytes(data)
    with pytest.warns(UserWarning, match="x.dcm ") as caught:
        read_image(tmp_path / "x.dcm")
    assert len(caught) == 1


@pytest.mark.parametrize("tags", [
    {}, {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "PatientOrientation": ["L", "F"]},
    {"Modality": "CR", "BodyPartExamined": "Port Chest", "ViewPosition": "AP", "PatientOrientation": ""},
    {"ViewPosition": "A.P."},
])
def test_nothing_to_note(tags):
    assert image_notes(dicom(np.array([[0, 255]], np.uint8), **tags), "x") == []
    assert image_notes(b"\x89PNG", "x.png") == []


def test_files_without_a_suffix_are_found(tmp_path):
    data = dicom(ROW, 12)
    for name in ("IM0001", "1.2.840.113619.7", "a.dcm", "sub/b.DICOM", "DICOMDIR", "notes", "notes.txt", "c.7"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"text" if name in ("notes", "c.7") else data)
    assert [name.as_posix() for _, name in find_images([tmp_path])] == ["1.2.840.113619.7", "IM0001", "a.dcm",
                                                                        "sub/b.DICOM"]
