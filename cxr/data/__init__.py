"""Any X-ray in: files, DICOM, lists, boxes, transforms, data sets, and phantoms to try things out."""
