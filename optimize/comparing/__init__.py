"""Finished runs held against each other, and against the last ones that were accepted."""
