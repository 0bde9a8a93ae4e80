"""DICOM in and out: series to volumes and pictures with their place in space, and segmentations to DICOM-SEG."""
