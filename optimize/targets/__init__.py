"""The targets, in one explicit list. A target is one file."""

from __future__ import annotations

from optimize.interfaces import Target
from optimize.targets import cpu, openvino

TARGETS: dict[str, Target] = {"cpu": cpu.TARGET, "openvino": openvino.TARGET}
