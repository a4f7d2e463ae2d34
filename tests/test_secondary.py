"""The picture as DICOM: what a viewer needs, and of the patient nothing that was not asked for."""
import io

import numpy as np
import pytest

from cxr.errors import InputError

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom: pip install pydicom pyjpegls")
from dicom_files import ROW, dicom  # noqa: E402

from cxr.data.images import read_bytes  # noqa: E402
from cxr.explain.secondary_capture import DESCRIPTION, origin, secondary_capture  # noqa: E402

PICTURE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)               # an odd number of bytes
PATIENT = {"PatientName": "Müller^Jürgen", "PatientID": "P-77", "IssuerOfPatientID": "Clinic", "PatientSex": "M",
           "PatientBirthDate": "19500101", "StudyInstanceUID": "1.2.3.5", "StudyDate": "20200102",
           "AccessionNumber": "A-9", "SpecificCharacterSet": "ISO_IR 100", "StudyDescription": "secret",
           "InstitutionName": "Hospital", "PatientAddress": "Street 1"}


def made(source):
    data = secondary_capture(PICTURE, "Class activation maps", source)
    return data, pydicom.dcmread(io.BytesIO(data))


def test_pixels_and_what_a_viewer_needs():
    data, ds = made(None)
    assert (ds.pixel_array == PICTURE).all() and (read_bytes(data, "x") == PICTURE).all()
    assert ds.SOPClassUID.name == "Secondary Capture Image Storage"
    assert ds.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID
    assert ds.SeriesDescription == DESCRIPTION == "CAM, research use only, not for diagnosis"
    assert ds.ConversionType == "WSD" and ds.Modality == "OT" and ds.ImageType == ["DERIVED", "SECONDARY"]
    assert ds.BurnedInAnnotation == "YES"                                     # nobody has looked
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                 "AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "Manufacturer", "InstanceNumber"):
        assert name in ds                                                     # type 2: there, and empty
    uids = {ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID}
    other = made(None)[1]
    assert len(uids | {other.StudyInstanceUID, other.SeriesInstanceUID, other.SOPInstanceUID}) == 6


def test_nothing_of_the_patient_is_copied():
    source = dicom(ROW, 12, BurnedInAnnotation="NO", LossyImageCompression="01", **PATIENT)
    data, ds = made(origin(source, keep_identity=False))
    assert ds.BurnedInAnnotation == "NO" and ds.LossyImageCompression == "01"
    for secret in ("ller", "rgen", "P-77", "Clinic", "1950", "1.2.3.5", "1.2.3.4", "2020", "A-9", "secret", "Hospital"):
        assert secret.encode() not in data, secret
    assert "SourceImageSequence" not in ds and ds.PatientName == ""


def test_identity_only_when_asked_for():
    source = dicom(ROW, 12, **PATIENT)
    data, ds = made(origin(source, keep_identity=True))
    for name in ("PatientName", "PatientID", "IssuerOfPatientID", "PatientSex", "PatientBirthDate", "StudyInstanceUID",
                 "StudyDate", "AccessionNumber"):
        assert ds[name].value == PATIENT[name], name
    assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert ds.SOPInstanceUID != "1.2.3.4" and ds.BurnedInAnnotation == "YES"
    for secret in (b"secret", b"Hospital", b"Street"):
        assert secret not in data
    with pytest.raises(InputError, match="names no study"):
        origin(dicom(ROW, 12, without=["StudyInstanceUID"]), keep_identity=True)
    assert origin(None, keep_identity=True) is None
