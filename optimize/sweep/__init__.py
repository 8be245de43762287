"""Many models at once: points of a matrix, built and measured on this machine or on a Ray cluster, and their front."""
