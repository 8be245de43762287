"""`python -m optimize` is the `optimize` command."""

from optimize.cli.commands import main

if __name__ == "__main__":
    main()
