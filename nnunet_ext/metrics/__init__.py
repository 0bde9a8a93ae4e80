"""Segmentation metrics: label maps as numpy arrays in, numbers out; nothing here reads files or knows nnU-Net.

`definitions` lists every metric; `overlap`, `surface` and `lesions` compute what they are taken from for two masks, and
`measure` does it for the structures of two segmentations.
"""
