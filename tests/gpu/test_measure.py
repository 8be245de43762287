"""The script that measures the CUDA target: what it does without a GPU. With one, it is its own test."""

import subprocess
import sys
from pathlib import Path

import pytest

from optimize.runtimes import nvidia

SCRIPT = Path(__file__).parent / "measure.py"


def test_without_a_gpu_it_says_so_in_one_line():
    if not nvidia.find_driver().error:
        pytest.skip("this machine has an NVIDIA GPU")
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "no CUDA device: " in done.stderr
    assert done.stderr.count("\n") == 1
