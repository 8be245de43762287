"""What hostile tests have in common: what came of a command, changes of its input, and what must hold afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HEAD = "text-classification"
PROGRESS = ("checkpoint: ", "data: ")
Change = Callable[[Path], object]
"""A change of a folder: of a copy of the small checkpoint, or of its data."""


@dataclass
class Asked:
    """What came of a command."""

    code: object
    out: str
    err: str


def assert_refused(asked: Asked, code: int, says: str, tmp_path: Path, *, progress: tuple[str, ...] = ()) -> None:
    """One line on stderr after the lines of progress so far, nothing on stdout, nothing left on disk."""
    *before, line = asked.err.splitlines()
    assert line.startswith("optimize: ")
    assert says in line
    assert [said[: said.index(": ") + 2] for said in before] == [*progress]
    assert (asked.code, asked.out) == (code, "")
    assert not (tmp_path / "out").exists()
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".partial") or "incomplete" in path.name]
    assert [name for name in left if not name.endswith(".lock")] == []


def command(*words: str, tmp_path: Path, before: str = "", within: tuple[str, ...] = ()) -> Asked:
    """Run the command in a process of its own, after `before` in the same shell; `left` lists the cache then."""
    cache, left = tmp_path / "cache", tmp_path / "left"
    script = f'{before} "$@"; code=$?; ls -A "{cache}" > "{left}" 2> /dev/null; exit $code'
    words = ("-m", "optimize", *words, "--out", str(tmp_path / "out"), "--cache", str(cache))
    shell = [*within, "sh", "-c", script, "sh", sys.executable, *words]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    return Asked(done.returncode, done.stdout, done.stderr)


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def remove(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink(missing_ok=True) for name in names]


def keep(folder: Path) -> None:
    """Change nothing."""


def configure(**values: object) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | values), encoding="utf-8")

    return change
