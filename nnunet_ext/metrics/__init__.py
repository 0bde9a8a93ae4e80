"""Segmentation metrics: label maps as numpy arrays in, numbers out; nothing here reads files or knows nnU-Net.

`definitions` lists every metric; `overlap`, `surface` and `lesions` compute what they are taken from for two masks, and
`measure` does it for the structures of two segmentations.
"""

LESION_IOU = 0.1  # from which a predicted and a reference lesion are taken for the same by default
DIAMETERS = (10, 20)  # in mm, which part small, medium and large lesions
