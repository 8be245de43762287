"""Containers: no home, a user that nobody knows, a cache that cannot be written, no terminal, too many threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hostile.cases import HEAD, Asked, assert_refused

from optimize import planning, refusals
from optimize.errors import UnavailableError
from optimize.machine import environment

STRANGER = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
"""A user id that no file of users has."""


def can(*words: str) -> bool:
    return shutil.which(words[0]) is not None and subprocess.run([*words, "true"], check=False).returncode == 0


def bare(*words: str, within: tuple[str, ...] = (), cwd: Path, **environment: str) -> Asked:
    """The command without a terminal and with no environment but what is given, in a folder of its own."""
    if within and not can(*within):
        pytest.skip(f"nobody may call {within[0]} here")
    cwd.mkdir(exist_ok=True)
    search = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "PATH": "/usr/bin:/bin"}
    command = [*within, sys.executable, "-m", "optimize", *words]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=search | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Asked(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def asks(checkpoint, data_folder) -> tuple[str, ...]:
    """Words that ask for a plan on local files."""
    return ("plan", "--model", str(checkpoint(HEAD)), "--data", str(data_folder(HEAD)))


HOMES: dict[str, dict[str, str]] = {
    "none": {},
    "an empty one": {"HOME": ""},
    "a relative one": {"HOME": "home"},
}


@pytest.mark.parametrize("home", HOMES.values(), ids=HOMES)
def test_a_stranger_without_a_home_is_told_what_to_name(asks, tmp_path: Path, home: dict[str, str]) -> None:
    asked = bare(*asks, within=STRANGER, cwd=tmp_path / "here", **home)

    assert_refused(asked, 3, "cache: this user has no home folder; set HOME, or name a folder with --cache", tmp_path)
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("home", HOMES.values(), ids=HOMES)
@pytest.mark.parametrize("language", ["C", "POSIX", "no_SUCH.UTF-8"])
def test_a_stranger_who_names_a_cache_needs_no_home(asks, tmp_path: Path, home: dict[str, str], language: str) -> None:
    cache = ("--cache", str(tmp_path / "cache"))

    asked = bare(*asks, *cache, within=STRANGER, cwd=tmp_path / "here", LC_ALL=language, **home)

    assert (asked.code, asked.err) == (0, "")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_stranger_without_a_home_sees_the_machine(tmp_path: Path) -> None:
    asked = bare("doctor", within=STRANGER, cwd=tmp_path / "here", LC_ALL="C")

    assert (asked.code, asked.err) == (0, "")
    assert "cores" in asked.out
    assert list((tmp_path / "here").iterdir()) == []


def test_a_stranger_without_a_home_builds(checkpoint, data_folder, tmp_path: Path) -> None:
    """What torch, transformers and datasets keep for a user has no place, and no name."""
    own = ("--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    data = ("--data", str(data_folder(HEAD)), "--certify-on", "test", "--examples", "4", "--calibration-examples", "2")
    words = ("run", "--model", str(checkpoint(HEAD)), *data, "--tuning-examples", "2", "--build-only", *own)

    asked = bare(*words, "--pipeline", "cpu-dynamic", within=STRANGER, cwd=tmp_path / "here", LC_ALL="C")

    assert asked.code == 4, asked.err
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_a_cache_that_may_not_be_written_is_one_line(checkpoint, data_folder, tmp_path: Path, variable: str) -> None:
    """A folder below a file is one that nobody can make, whoever runs the tests."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    words = ("run", "--model", str(checkpoint(HEAD)), "--data", str(data_folder(HEAD)), "--out", str(tmp_path / "out"))

    asked = bare(*words, cwd=tmp_path / "here", **{"HOME": str(tmp_path), variable: str(tmp_path / "file")})

    *_, line = asked.err.splitlines()
    assert (asked.code, line[: len("optimize: ")]) == (3, "optimize: ")
    assert "Traceback" not in asked.err
    assert str(tmp_path / "file") in line


def test_no_home_is_no_fault_of_the_request(monkeypatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("none")))

    with pytest.raises(UnavailableError, match="cache: this user has no home folder"):
        environment.cache_root()


@pytest.mark.parametrize("threads", [33, 1000, 10_000, 10**12, 10**30])
@pytest.mark.parametrize("word", ["plan", "run"])
def test_more_threads_than_any_core_runs_are_refused(optimize, tmp_path, monkeypatch, word: str, threads: int) -> None:
    monkeypatch.setattr(refusals, "host_cores", lambda: 8)
    monkeypatch.setattr(refusals, "usable_cores", lambda: 3)

    says = f"--threads: {threads} is more than 32, 4 for each core of this machine; give 3, or leave it out"
    assert_refused(optimize(word, "--threads", str(threads)), 2, says, tmp_path)


@pytest.mark.parametrize("threads", [1, 8, 32])
def test_as_many_threads_as_cores_may_run_are_planned(optimize, monkeypatch, threads: int) -> None:
    monkeypatch.setattr(refusals, "host_cores", lambda: 8)

    assert optimize("plan", "--threads", str(threads)).code == 0


def test_threads_that_nobody_gives_are_the_cores_of_the_container(optimize, monkeypatch) -> None:
    monkeypatch.setattr(planning, "usable_cores", lambda: 3)

    assert '"threads": 3' in optimize("plan", "--json").out
