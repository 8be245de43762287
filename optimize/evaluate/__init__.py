"""What a model answers on data, and how that compares with another model's answers."""
