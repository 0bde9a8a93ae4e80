"""SAMUS and SAMUS-HF: SAM with a convolutional branch, for ultrasound."""
