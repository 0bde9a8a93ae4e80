"""Prediction beyond what nnU-Net's own command does."""
