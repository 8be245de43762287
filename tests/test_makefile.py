"""What `make` would run, by a dry run."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def command(tmp_path):
    """The words of the last command that `make` would run; `gpu` says whether NVIDIA's driver is there."""

    def dry_run(*words: str, gpu: bool = False) -> list[str]:
        for name in ("sh", "awk", "rm"):
            (tmp_path / name).symlink_to(f"/bin/{name}")
        if gpu:
            (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n", encoding="utf-8")
            (tmp_path / "nvidia-smi").chmod(0o755)
        done = subprocess.run(
            ["/usr/bin/make", "-n", "-C", str(ROOT), *words],
            env={"PATH": str(tmp_path)}, check=True, capture_output=True, text=True,
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if "/bin/optimize" in line]
        return shlex.split(lines[-1])

    return dry_run


def test_a_pipeline_alone_is_enough(command):
    assert command("optimize", "PIPELINE=openvino-int8") == [
        ".venv/bin/optimize",
        "run",
        "--pipeline",
        "openvino-int8",
    ]


@pytest.mark.parametrize("target", ["optimize", "bench"])
def test_no_target_is_passed_that_nobody_gave(command, target):
    assert "--target" not in command(target)


@pytest.mark.parametrize("value", ["my model", "it's mine", 'a "b"', "a;b", "$$HOME"])
def test_a_value_is_one_word_whatever_is_in_it(command, value):
    words = command("optimize", f"MODEL={value}", f"DATA={value}", "HEAD=fill-mask", "BUILD_ONLY=1", "ARGS=--seed 1")

    said = value.replace("$$", "$")
    given = ["--model", said, "--data", said, "--head", "fill-mask", "--build-only", "--seed", "1"]
    assert words == [".venv/bin/optimize", "run", *given]


def test_a_run_is_certified(command):
    assert command("certify", "RUN=my runs/x", "MODEL=here") == [
        ".venv/bin/optimize",
        "certify",
        "my runs/x",
        "--model",
        "here",
    ]


@pytest.mark.parametrize("asked", ["TARGET=cuda", "PIPELINE=cuda-int8", "PIPELINE=cuda"])
@pytest.mark.parametrize(("gpu", "folder"), [(True, ".venv-cuda"), (False, ".venv")])
def test_cuda_has_an_environment_of_its_own_where_there_is_a_gpu(command, asked, gpu, folder):
    assert command("optimize", asked, gpu=gpu)[0] == f"{folder}/bin/optimize"


def test_another_pipeline_does_not_use_the_gpus_environment(command):
    assert command("optimize", "PIPELINE=openvino-int8", gpu=True)[0] == ".venv/bin/optimize"


@pytest.mark.parametrize(("target", "verb"), [("baseline", "accept"), ("regress", "regress")])
def test_a_run_is_accepted_and_held_against_what_was(command, target, verb):
    words = [".venv/bin/optimize", verb, "my runs/x", "--baselines", "here"]
    assert command(target, "RUN=my runs/x", "ARGS=--baselines here") == words
