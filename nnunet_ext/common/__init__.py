"""What every room uses: errors, files, processes, progress, provenance, words, and the host's private names."""
