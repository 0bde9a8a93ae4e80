"""Normalisation classes and resampling functions that plans name; nnU-Net uses them at training and at prediction."""
