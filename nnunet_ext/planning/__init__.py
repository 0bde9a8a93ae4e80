"""nnU-Net experiment planners that give the papers' plans."""
