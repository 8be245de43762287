"""The targets, in one explicit list. A target is one file."""

from __future__ import annotations

from optimize.interfaces import Target
from optimize.targets import cpu, cuda, openvino

TARGETS: dict[str, Target] = {"cpu": cpu.TARGET, "cuda": cuda.TARGET, "openvino": openvino.TARGET}
DEFAULT_TARGET = cpu.TARGET.name
"""Where a model is to run if nobody says where."""
ANY_TARGET = "auto"
"""In a target's place: whichever of this machine's engines turns out to be the fastest."""
