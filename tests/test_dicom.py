"""DICOM in: every value by hand."""
import base64
import io
import warnings

import dicom_files
import numpy as np
import pydicom
import pytest
from dicom_files import QUIET, ROW, compressed, dicom, greys, lut, refused
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr.data.images import find_images, image_notes, read_bytes, read_image

pytestmark = QUIET


@pytest.fixture(scope="module")
def deep():
    return dicom_files.deep()


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
    monkeypatch.setattr("cxr.data.dicom._READERS", ("pydicom",))
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


# --- a real file, notes, and finding files -------------------------------------------------------------------------

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
