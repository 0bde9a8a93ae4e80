"""What every room uses: errors, files, processes, progress, words and the like, and the host's private names."""
