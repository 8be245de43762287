"""Code that is copied beside a model and runs where the model is served: it imports nothing of this package."""
