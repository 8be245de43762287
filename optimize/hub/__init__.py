"""The Hugging Face Hub: asked in time, or its cache in its place; what it refuses is said in our words."""
