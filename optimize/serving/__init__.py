"""A finished model behind HTTP: batches of similar length, limits, metrics, and an end that loses nothing."""
