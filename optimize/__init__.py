"""A staged optimization and quantization pipeline for DistilBERT."""

__version__ = "0.1.0"
