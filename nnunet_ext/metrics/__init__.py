"""Segmentation metrics: label maps as numpy arrays in, numbers out.

Nothing here reads files or knows nnU-Net. `definitions` lists every metric; `overlap`, `surface` and `lesions` compute
them from two masks, and `measure` computes all of them for the structures of two segmentations.

>>> import numpy as np
>>> from nnunet_ext.metrics.overlap import Overlap
>>> from nnunet_ext.metrics.surface import surface_distances
>>> prediction, reference = np.zeros((2, 64, 64), bool)
>>> prediction[20:40, 20:40] = reference[20:40, 24:44] = True
>>> Overlap.of(prediction, reference).dice
0.8
>>> surface_distances(prediction, reference, spacing=(0.5, 0.5)).hd95
2.0
"""
