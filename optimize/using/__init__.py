"""A finished model as a callable that answers as transformers.pipeline does, without torch and without transformers."""
