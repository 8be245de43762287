"""The embedded default: text and small checkpoints of each head, made here."""
