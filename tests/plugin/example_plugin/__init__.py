"""A trainer, a planner, a normalisation and a resampling function for nnU-Net."""
