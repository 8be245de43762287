"""What killed processes left goes, and what the living are filling stays, whatever they are called."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optimize.files import leftovers
from optimize.files.leftovers import OWNER, owned_partial, sweep

OWN = """
import pathlib, sys, time
from optimize.files.leftovers import owned_partial

with owned_partial(pathlib.Path(sys.argv[1]), "work") as folder:
    (folder / "half").touch()
    print("filling", flush=True)
    time.sleep(60)
"""
SWEEP = """
import pathlib, sys
from optimize.files.leftovers import sweep

sweep(pathlib.Path(sys.argv[1]))
"""
PROCESS_1 = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
"""Begins a command that sees itself as process 1, as in a container."""
OTHER_HOST = ["unshare", "--user", "--map-root-user", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]


def places(root: Path) -> list[Path]:
    return list(root.glob(f"{leftovers.PREFIX}*"))


def age(place: Path, seconds: float) -> None:
    for path in (place, *place.rglob("*")):
        os.utime(path, (0, time.time() - seconds))


def needs(within: list[str]) -> None:
    if within and subprocess.run([*within, "true"], check=False, capture_output=True).returncode:
        pytest.skip("nobody may make a namespace here")


@pytest.fixture
def fill(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that fills a folder until it is killed."""
    started = []

    def start(within: list[str]) -> subprocess.Popen[str]:
        needs(within)
        command = [*within, sys.executable, "-c", OWN, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "filling\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=60)


WHERE = {"here": [], "as process 1": PROCESS_1, "under another host name": OTHER_HOST}


@pytest.mark.parametrize("sweeper", WHERE.values(), ids=[f"swept {name}" for name in WHERE])
@pytest.mark.parametrize("owner", WHERE.values(), ids=[f"owned {name}" for name in WHERE])
def test_the_living_keep_what_they_fill_and_the_killed_leave_nothing(fill, tmp_path: Path, owner, sweeper) -> None:
    needs(sweeper)
    process = fill(owner)
    sweeping = [*sweeper, sys.executable, "-c", SWEEP, str(tmp_path)]

    subprocess.run(sweeping, check=True, timeout=60)
    (kept,) = places(tmp_path)
    assert (kept / "work" / "half").exists()

    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert places(tmp_path) == [kept]
    subprocess.run(sweeping, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_filled_is_renamed_into_place_and_nothing_else_stays(tmp_path: Path) -> None:
    with owned_partial(tmp_path / "new", "work") as folder:
        assert (folder.name, list(folder.iterdir())) == ("work", [])
        (folder / "whole").touch()
        folder.rename(tmp_path / "new" / "done")

    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "new",
        "new/done",
        "new/done/whole",
    ]


def fill_until(failure: BaseException, root: Path) -> None:
    with owned_partial(root, "work") as folder:
        (folder / "half").touch()
        raise failure


@pytest.mark.parametrize("failure", [ZeroDivisionError(), KeyboardInterrupt(), SystemExit()], ids=repr)
def test_a_failure_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)):
        fill_until(failure, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_process_does_not_sweep_its_own_work(tmp_path: Path) -> None:
    with owned_partial(tmp_path, "work") as folder:
        age(folder.parent, 10 * leftovers.ABANDONED_SECONDS)
        sweep(tmp_path)
        assert folder.is_dir()


def test_a_folder_can_be_read_by_whom_the_user_lets_read(tmp_path: Path) -> None:
    with owned_partial(tmp_path, "work") as folder:
        (tmp_path / "usual").mkdir()
        assert folder.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What a process left that was killed: nobody holds its lock."""
    place = tmp_path / f"{leftovers.PREFIX}x"
    (place / "work").mkdir(parents=True)
    (place / OWNER).write_text(leftovers._kernel(), encoding="utf-8")
    return place


def write_other_kernel(place: Path) -> None:
    (place / OWNER).write_text("another", encoding="utf-8")


def write_no_kernel(place: Path) -> None:
    (place / OWNER).write_text("", encoding="utf-8")


def write_no_text(place: Path) -> None:
    (place / OWNER).write_bytes(b"\xff\xfe")


def lose_the_owner(place: Path) -> None:
    (place / OWNER).unlink()


def make_the_owner_a_folder(place: Path) -> None:
    (place / OWNER).unlink()
    (place / OWNER).mkdir()


def make_the_owner_a_pipe(place: Path) -> None:
    (place / OWNER).unlink()
    os.mkfifo(place / OWNER)


@pytest.mark.parametrize(
    "change",
    [
        write_other_kernel,
        write_no_kernel,
        write_no_text,
        lose_the_owner,
        make_the_owner_a_folder,
        make_the_owner_a_pipe,
    ],
)
def test_where_a_lock_says_nothing_age_decides(left: Path, tmp_path: Path, change) -> None:
    change(left)
    sweep(tmp_path)
    assert left.exists()

    age(left, leftovers.ABANDONED_SECONDS + 60)
    sweep(tmp_path)
    assert not left.exists()


def test_one_young_file_is_enough_to_be_young(left: Path, tmp_path: Path) -> None:
    write_other_kernel(left)
    age(left, leftovers.ABANDONED_SECONDS + 60)
    (left / "work" / "young").touch()

    sweep(tmp_path)

    assert left.exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks_goes_by_age(tmp_path: Path, monkeypatch, code: int) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with owned_partial(tmp_path, "work") as folder:
        sweep(tmp_path)
        assert folder.exists()
        age(folder.parent, leftovers.ABANDONED_SECONDS + 60)
        sweep(tmp_path)
        assert not folder.exists()


def test_what_a_dead_process_left_goes_at_once(left: Path, tmp_path: Path) -> None:
    sweep(tmp_path)
    assert not left.exists()


def test_a_link_is_not_followed(left: Path, tmp_path: Path) -> None:
    shutil.move(left, tmp_path / "elsewhere")
    left.symlink_to(tmp_path / "elsewhere")

    sweep(tmp_path)

    assert (tmp_path / "elsewhere" / "work").is_dir()


def test_nothing_but_our_own_is_looked_at(tmp_path: Path) -> None:
    theirs = tmp_path / ".partial-theirs"
    theirs.mkdir()
    age(theirs, 10 * leftovers.ABANDONED_SECONDS)

    sweep(tmp_path)
    sweep(tmp_path / "none")

    assert theirs.is_dir()
