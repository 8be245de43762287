"""Disks that are full, or that may not be written to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hostile.cases import PROGRESS, assert_refused, command


def test_a_file_that_may_not_grow_stops_a_run_in_one_line(folders, tmp_path: Path) -> None:
    """The limit on file sizes works everywhere, and fails in the middle of a write as a full disk does."""
    asked = command("run", *folders(), tmp_path=tmp_path, before="ulimit -f 1000;")

    assert_refused(asked, 3, "File too large; raise the limit", tmp_path, progress=PROGRESS[:1])
    assert (tmp_path / "left").read_text(encoding="utf-8") == ""


def test_a_full_disk_stops_a_run_in_one_line(folders, tmp_path: Path) -> None:
    """A disk of one MiB, mounted in a namespace of its own, where this machine lets a user do so."""
    (tmp_path / "cache").mkdir()
    mount = f'mount -t tmpfs -o size=1m tmpfs "{tmp_path}/cache"'
    alone = ("unshare", "-rm")
    if shutil.which("unshare") is None or subprocess.run([*alone, "sh", "-c", mount], check=False).returncode:
        pytest.skip("nobody may mount a disk here")

    asked = command("run", *folders(), tmp_path=tmp_path, before=f"{mount};", within=alone)

    assert_refused(asked, 3, "cache: the disk is full; free some space", tmp_path, progress=PROGRESS[:1])
    assert (tmp_path / "left").read_text(encoding="utf-8") == ""
