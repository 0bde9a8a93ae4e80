"""Normalisation classes that plans name; nnU-Net applies them at training and at prediction alike."""
