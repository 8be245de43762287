"""`python -m optimize` is the `optimize` command; what fails while it is imported ends as a command does."""

from typing import NoReturn

from optimize.cli.ending import end


def main() -> NoReturn:
    """Entry point of the command."""
    end(_import_and_run)


def _import_and_run() -> int | None:
    from optimize.cli.commands import run_command

    return run_command()


if __name__ == "__main__":
    main()
