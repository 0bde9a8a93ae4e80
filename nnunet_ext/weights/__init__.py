"""Pretrained weights: where they are and whether they are the right ones. No torch here."""
