"""Pipelines' files that are not what they should be: one line, exit code 2, at once, and nothing left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile.cases import assert_refused

SECONDS = 1.5
"""Of processor time: on a busy machine the clock says little."""
START = b"target: cpu\nstages: [export, quantize_static]\n"
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n".encode() for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
LONG = b"x" * 9_000

CONTENT: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "a pipeline is a mapping"),
    "a word": (b"cpu", "a pipeline is a mapping"),
    "zeros": (b"\0" * 99, "not YAML (unacceptable character"),
    "Latin-1": (b"target: \xe9", "cannot be read (byte 8 is not UTF-8); check --pipeline"),
    "UTF-16": (START.decode().encode("utf-16"), "cannot be read (byte 0 is not UTF-8)"),
    "half a surrogate": (b'target: "\\ud800"', "not YAML ("),
    "too large": (START + b"# " + b"x" * 2**16, "cannot be read (it is larger than 64 KiB)"),
    "an alias": (b"target: &here cpu\nstages: [*here]\n", "not YAML (line 2, column 10: aliases are not read"),
    "an alias bomb": (BOMB, "aliases are not read; write it out"),
    "an alias bomb as a parameter": (
        b"target: cpu\nstages:\n- export: {opset: &a [1, 2]}\n- quantize_static: {method: [*a, *a]}\n",
        "not YAML (line 4, column 30: aliases are not read",
    ),
    "an alias of itself": (b"target: &a [*a]\n", "aliases are not read"),
    "a merge": (b"target: cpu\ngates: {<<: {min_speedup: 1}}\n", "a merge is read as text only; quote it"),
    "a Python object": (b"target: !!python/object/apply:os.getcwd []\n", "tags are not read; leave it out"),
    "a tag that is wrong": (b"target: !!int ''\n", "tags are not read"),
    "two documents": (START + b"---\n" + START, "not YAML (line "),
    "deep lists": (b"target: " + b"[" * 9_000, "it is nested deeper than 32 levels"),
    "deep closed lists": (b"target: " + b"[" * 9_000 + b"]" * 9_000, "it is nested deeper than 32 levels"),
    "deep mappings": (b"{a: " * 9_000, "it is nested deeper than 32 levels"),
    "deep dashes": (b"- " * 9_000, "it is nested deeper than 32 levels"),
    "deep questions": (b"? " * 9_000, "it is nested deeper than 32 levels"),
    "a key twice": (START + b"target: openvino\n", "not YAML (line 3, column 1: 'target' is there twice"),
    "a limit twice": (START + b"gates: {min_speedup: 2, min_speedup: 1}\n", "'min_speedup' is there twice; leave one"),
    "a parameter twice": (
        b"target: cpu\nstages:\n- export:\n    opset: 17\n    opset: 18\n",
        "line 5, column 5: 'opset'",
    ),
    "a list as a key": (b"? [target]\n: cpu\n", "a key is one word"),
    "a date": (b"target: 2024-01-31\n", "a timestamp is read as text only; quote it"),
    "a day that is none": (b"target: 2024-13-45\n", "a timestamp is read as text only; quote it"),
    "thousands of digits": (START + b"gates: {min_speedup: " + b"9" * 9_000 + b"}\n", "not YAML (Exceeds the limit"),
    "yes as a limit": (
        START + b"gates: {min_agreement: yes}\n",
        "gates: min_agreement: true and false are not numbers",
    ),
    "no as a limit": (START + b"gates: {max_metric_drop: no}\n", "gates: max_metric_drop: true and false are not"),
    "on as a limit": (START + b"gates: {max_memory_bytes: on}\n", "max_memory_bytes: true and false are not numbers"),
    "yes as a head's limit": (START + b"head_gates: {fill-mask: {min_agreement: yes}}\n", "true and false are not num"),
    "yes as a parameter": (b"target: cpu\nstages: [{export: {opset: yes}}]\n", "opset: "),
    "a limit that is no number": (START + b"gates: {min_speedup: .nan}\n", "not YAML (nan is not a finite number)"),
    "a limit that is infinite": (START + b"gates: {min_speedup: .inf}\n", "not YAML (inf is not a finite number)"),
    "a limit as text": (START + b"gates: {min_speedup: fast}\n", "gates: min_speedup: input should be a valid number"),
    "limits as a list": (START + b"gates: [min_speedup]\n", "gates: parameters are a mapping"),
    "a long target": (b"target: " + LONG, "x…'; choose one of: auto, cpu"),
    "a long key": (START + b"? " + LONG + b"\n: 1\n", "x…'; choose one of: "),
    "a long stage": (b"target: cpu\nstages: [" + LONG + b"]\n", "x…'; choose one of: "),
    "a long value": (START + b"gates: {min_speedup: " + LONG + b"}\n", "was 'xxx"),
    "long limits": (START + b"gates: " + LONG, "gates: parameters are a mapping, not 'xxx"),
    "long limits of a head": (START + b"head_gates: {fill-mask: " + LONG + b"}\n", "limits are a mapping, not 'xxx"),
    "a stage that is a long list": (b"target: cpu\nstages: [[" + b"x, " * 3_000 + b"]]\n", "is not a stage; write"),
    "an escape sequence": (b'target: "\\e[31mcpu"\n', "'\\x1b[31mcpu'"),
    "a candidate twice": (b"target: cpu\ncandidates: [cpu-dynamic, cpu-dynamic]\n", "'cpu-dynamic' is there twice"),
    "a candidate of another target": (
        b"target: cpu\ncandidates: [cpu-dynamic, openvino]\n",
        "candidate openvino: is for target 'openvino', not 'cpu'; name another",
    ),
    "candidates that are numbers": (b"target: cpu\ncandidates: [1, 2]\n", "candidates is not a list of names"),
    "a candidate that is itself": (b"target: cpu\ncandidates: [mine.yaml]\n", "mine.yaml: cannot be read"),
}


def plan(optimize: Callable[..., object], path: Path, says: str, tmp_path: Path) -> None:
    """What is refused is refused at once, in a line that somebody can read."""
    began = time.process_time()
    asked = optimize("plan", "--pipeline", str(path))

    assert_refused(asked, 2, says, tmp_path)
    assert len(asked.err) < len(str(path)) + 500
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(("content", "says"), CONTENT.values(), ids=CONTENT)
def test_a_file_that_holds_no_pipeline_is_one_line(optimize, tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)

    plan(optimize, path, says, tmp_path)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda path: None, "cannot be read (No such file or directory); check --pipeline"),
    "a folder": (lambda path: path.mkdir(), "cannot be read (it is not a regular file)"),
    "a FIFO": (os.mkfifo, "cannot be read (it is not a regular file)"),
    "a link to a FIFO": (
        lambda path: (os.mkfifo(path.with_suffix(".fifo")), path.symlink_to(path.with_suffix(".fifo"))),
        "cannot be read (it is not a regular file)",
    ),
    "zeros without end": (lambda path: path.symlink_to("/dev/zero"), "cannot be read (it is not a regular file)"),
    "nothing without end": (lambda path: path.symlink_to("/dev/null"), "cannot be read (it is not a regular file)"),
    "a terminal": (lambda path: path.symlink_to("/dev/tty"), "cannot be read ("),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be read (Too many levels of symbolic links)"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "cannot be read (No such file or directory)"),
    "a hole of a terabyte": (lambda path: (path.touch(), os.truncate(path, 2**40)), "it is larger than 64 KiB"),
}


@pytest.mark.parametrize(("make", "says"), FILES.values(), ids=FILES)
def test_what_is_no_file_of_yaml_is_one_line(optimize, tmp_path: Path, make, says: str) -> None:
    path = tmp_path / "mine.yaml"
    make(path)

    plan(optimize, path, says, tmp_path)


@pytest.mark.parametrize(
    "path", ["~nosuchuser/mine.yaml", "/dev/null/mine.yaml", f"{'x' * 300}.yaml", "a\tb.yaml", " "]
)
def test_a_path_that_leads_nowhere_is_one_line(optimize, tmp_path: Path, path: str) -> None:
    assert_refused(optimize("plan", "--pipeline", path), 2, ": ", tmp_path)


RIGHT = {
    "a byte order mark": b"\xef\xbb\xbf" + START,
    "line ends of Windows": START.replace(b"\n", b"\r\n"),
    "booleans where they are meant": b"target: cpu\nstages: [{export: {lean: no}}, quantize_dynamic]\n",
    "a comment": b"# \xc3\xa9\n" + START,
}


@pytest.mark.parametrize("content", RIGHT.values(), ids=RIGHT)
def test_a_pipeline_that_only_looks_odd_is_read(optimize, tmp_path: Path, content: bytes) -> None:
    path, link = tmp_path / "mine.txt", tmp_path / "mine.yaml"
    path.write_bytes(content)
    link.symlink_to(path)

    asked = optimize("plan", "--pipeline", str(link))

    assert (asked.code, asked.err) == (0, "")


SETTINGS: dict[str, tuple[str, str]] = {
    "yes as a limit": ("gates.min_agreement=yes", "min_agreement: true and false are not numbers"),
    "a boolean as a number": ("export.opset=true", "opset: "),
    "a deep value": (f"export.opset={'[' * 5_000}", "nested deeper than 32 levels"),
    "an alias": ("export.opset=[&a 1, *a]", "aliases are not read"),
    "a key twice": ("export.opset={a: 1, a: 2}", "'a' is there twice"),
    "no number": ("gates.min_speedup=.nan", "nan is not a finite number"),
    "a long value": (f"gates.min_speedup={'x' * 9_000}", "was 'xxx"),
    "a long name": (f"{'x' * 9_000}.y=1", "x…'; choose one of"),
    "a long one that is none": ("x" * 9_000, "x…' is not stage.parameter=value"),
}


@pytest.mark.parametrize(("setting", "says"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_is_read_as_a_pipeline_is(optimize, tmp_path: Path, setting: str, says: str) -> None:
    asked = optimize("plan", "--set", setting)

    assert_refused(asked, 2, says, tmp_path)
    assert len(asked.err) < 800
