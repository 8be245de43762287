"""What libraries complain of though nothing is wrong is not said to whoever imports this package."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMPLAIN = """
for each in map(logging.getLogger, noise.NOISY):
    each.warning("it complains")
    each.error("it fails")
"""


@pytest.mark.parametrize(
    ("before", "complaints"),
    [("", 0), ("logging.getLogger('torchao').setLevel(logging.INFO)", 1)],
    ids=["as it is", "where a user has set a level"],
)
def test_importing_this_package_keeps_complaints_off_the_terminal_but_no_errors(before, complaints):
    code = f"import logging\n{before}\nimport optimize\nfrom optimize.machine import noise\n{COMPLAIN}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert said.count("it complains") == complaints
    assert said.count("it fails") == 3
