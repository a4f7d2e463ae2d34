"""A picture as a DICOM Secondary Capture, which a viewer opens beside the study. Needs the extra `dicom`.

Who is shown is not written unless asked for. By default the file belongs to a study of its own, of nobody, with new
identifiers throughout: nothing in it leads back to its source. With the identity kept it carries the patient and
study elements below, which an archive needs to file it beside the image it was made from, and a reference to that.
"""
from __future__ import annotations

import io
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from cxr import __version__
from cxr.data import dicom
from cxr.errors import InputError

if TYPE_CHECKING:                                    # an extra, which only this export needs
    from pydicom.dataset import Dataset

DESCRIPTION = "CAM, research use only, not for diagnosis"

# Patient and General Study, types 1 and 2 (PS3.3 C.7.1.1, C.7.2.1), and who issued the patient's number.
_IDENTITY = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
             "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName")
_SOURCE = ("SOPClassUID", "SOPInstanceUID")
_HONESTY = ("BurnedInAnnotation", "LossyImageCompression")


def origin(data: bytes | None, keep_identity: bool) -> Dataset | None:
    """What `secondary_capture` needs to know of the DICOM file that a picture is made from.

    Args:
        data: the file's content; None for an image that is not DICOM.
        keep_identity: whether patient and study are to be copied.

    Returns:
        The elements to copy; None for an image that is not DICOM.

    Raises:
        InputError: the identity is to be kept of a file that has none (the sentence does not name the file).
    """
    names = _HONESTY + (_IDENTITY + _SOURCE if keep_identity else ())
    if data is None:
        return None
    ds = dicom.read(data, names)
    if keep_identity and not ds.get("StudyInstanceUID"):
        raise InputError("names no study, so nothing can be filed beside it: leave --keep_identity away")
    return ds


def secondary_capture(picture: np.ndarray, derivation: str, source: Dataset | None = None) -> bytes:
    """The bytes of a DICOM file (SC Image IOD, PS3.3 A.8.1) that shows a picture.

    BurnedInAnnotation is NO only where the source says so of itself: nobody has looked at its pixels.

    Args:
        picture: (H, W, 3) uint8 RGB.
        derivation: how it was made, a sentence.
        source: of `origin`.

    Returns:
        The content of the file.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    now, source = datetime.now(), Dataset() if source is None else source
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    for name in _IDENTITY:
        if source.get(name) or name != "IssuerOfPatientID":                    # which may be absent, not empty
            setattr(ds, name, str(source.get(name) or ""))
    ds.StudyInstanceUID = source.get("StudyInstanceUID") or generate_uid(prefix=None)
    if source.get("SOPInstanceUID") and source.get("SOPClassUID"):
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
        ds.SourceImageSequence = [reference]
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid(prefix=None)
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = "OT", generate_uid(prefix=None), None
    ds.SeriesDescription, ds.Laterality, ds.InstanceNumber = DESCRIPTION, "", 1
    ds.ConversionType, ds.Manufacturer = "WSD", ""
    ds.SecondaryCaptureDeviceSoftwareVersions = f"paddle-cxr {__version__}"
    ds.ContentDate, ds.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    ds.ImageType, ds.PatientOrientation = ["DERIVED", "SECONDARY"], ""
    ds.DerivationDescription = derivation[:1024]
    ds.ImageComments = DESCRIPTION
    ds.BurnedInAnnotation = "NO" if source.get("BurnedInAnnotation") == "NO" else "YES"
    if source.get("LossyImageCompression") == "01":
        ds.LossyImageCompression = "01"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PlanarConfiguration = *picture.shape[:2], 3, 0
    ds.PhotometricInterpretation, ds.PixelRepresentation = "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    pixels = np.ascontiguousarray(picture, np.uint8).tobytes()
    ds.PixelData = pixels + b"\0" * (len(pixels) % 2)
    ds["PixelData"].VR = "OB"
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()
