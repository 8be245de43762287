"""Environments with libraries that exclude ours: made once, kept in the user's cache, since that takes minutes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest
from filelock import FileLock

from optimize.machine.environment import cache_root

ROOT = Path(__file__).parents[2]
PATIENCE = 900
"""Seconds that an installation may take."""


def environment(name: str, requirements: Sequence[str], *, without: Sequence[str] = ()) -> Path:
    """The interpreter of an environment with these requirements, words of `pip install`; skips where pip has them not.

    Files that are named with -c shape it by their content. `without` are distributions taken away again.
    """
    home = cache_root() / "environments" / name
    home.parent.mkdir(parents=True, exist_ok=True)
    python, made = home / "bin" / "python", home / "made-of"
    digest = hashlib.sha256(repr([_content(word) for word in (*requirements, *without)]).encode()).hexdigest()
    with FileLock(f"{home}.lock"):
        if made.exists() and made.read_text() == digest:
            return python
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        pip = [python, "-m", "pip", "--quiet"]
        done = subprocess.run(
            [*pip, "install", *requirements], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        if done.returncode:
            pytest.skip(f"{name} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        if without:
            subprocess.run([*pip, "uninstall", "--yes", *without], check=True, timeout=PATIENCE)
        made.write_text(digest)
    return python


def _content(word: str) -> str:
    path = Path(word)
    return path.read_text() if path.is_file() else word


def run_there(python: Path, *words: object, accepted: Sequence[int] = (0,)) -> str:
    """What Python says in an environment, asked with these words, with this tree's package on its path."""
    known = os.environ | {"PYTHONPATH": str(ROOT), "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [python, *map(str, words)], env=known, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode in accepted, done.stderr[-3000:]
    return done.stdout
