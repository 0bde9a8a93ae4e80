"""Segmentation metrics: label maps as numpy arrays in, numbers out."""
