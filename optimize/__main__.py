"""`python -m optimize` is the `optimize` command."""

from optimize.cli import main

if __name__ == "__main__":
    main()
