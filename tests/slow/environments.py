"""Python environments with libraries whose pins exclude each other's; they are kept in the user's cache."""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

from optimize.machine.environment import cache_root


def python_with(name: str, packages: Sequence[str]) -> Path:
    """The interpreter of an environment with these packages; skips where they cannot be installed."""
    home = cache_root() / name
    found, ready = home / "bin" / "python", home / f"ready-{'-'.join(packages)}"
    if not ready.exists():
        venv.create(home, clear=True, with_pip=True)
        words = [found, "-m", "pip", "install", "--quiet", *packages]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=540)
        if done.returncode:
            pytest.skip(f"{name} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        # optimum-intel brings torchvision, whose build need not be torch's; text needs none.
        words = [found, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"]
        subprocess.run(words, check=True, capture_output=True, timeout=120)
        ready.touch()
    return found
