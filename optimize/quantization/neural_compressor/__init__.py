"""Intel Neural Compressor, as `quantize_neural_compressor` uses it."""
