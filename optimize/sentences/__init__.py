"""Sentence encoders: what sentence-transformers puts behind a transformer to make one vector of a text."""
