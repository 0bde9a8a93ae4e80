"""Where jobs run: on this machine, or on a SLURM cluster."""
