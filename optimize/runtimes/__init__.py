"""How a model folder is run: one file an engine."""
