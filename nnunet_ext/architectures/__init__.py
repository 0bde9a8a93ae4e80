"""Networks only: plain torch modules that know nothing of nnU-Net."""
