"""Thin nnUNetTrainer subclasses: which network, loss, optimiser, schedule and augmentation."""
