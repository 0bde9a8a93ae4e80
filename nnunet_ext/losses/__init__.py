"""Losses that nnU-Net does not have."""
