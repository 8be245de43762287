"""Measurement: accuracy, drift, size, latency and memory, always beside the FP32 reference."""
