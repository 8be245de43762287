"""The command line: all that prints, reads its words, or sets an exit code."""
