"""DICOM files built by hand, for the tests of reading them."""
import io
import warnings

import numpy as np
import pytest

from cxr.data.images import read_bytes
from cxr.errors import InputError

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom: pip install pydicom pyjpegls")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

# Under pytest this project's own filter is not in force; see `test_the_process_stays_silent`.
QUIET = [pytest.mark.filterwarnings(f"ignore::UserWarning:pydicom.{name}")
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
