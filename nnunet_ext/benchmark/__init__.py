"""The benchmark matrix: dataset x model x fold x seed as stock nnU-Net commands, here or on a SLURM cluster."""
