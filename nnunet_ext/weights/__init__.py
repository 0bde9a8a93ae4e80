"""Pretrained weights: where they are, whether they are the right ones, and how they get there.

Only `loading` imports torch.
"""
