"""What GitHub Actions shows of a step: annotations, which are lines of its output, and a summary, which is a file.

Both are found from the environment that GitHub gives every step. Annotations are workflow commands, which GitHub reads
from standard error as well as from standard output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from optimize.ci.findings import Suite

ACTIONS, SUMMARY = "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"
LEVELS = {"failed": "error", "unverified": "warning"}
IN_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
IN_PROPERTIES = {**IN_DATA, **str.maketrans({":": "%3A", ",": "%2C"})}
"""What would end a command's text, or one of its properties."""


def is_github(environment: Mapping[str, str]) -> bool:
    """Whether GitHub Actions reads what is printed."""
    return environment.get(ACTIONS) == "true"


def workflow_commands(suite: Suite) -> Iterator[str]:
    """An annotation, a line, for each finding that is not passed; none where all are."""
    head, target, *rest = suite.subject
    for finding in suite.findings:
        if finding.outcome in LEVELS:
            title = f"{finding.name} {finding.outcome}".translate(IN_PROPERTIES)
            text = f"{head} on {target}, {', '.join(rest)}: {finding.reason}".translate(IN_DATA)
            yield f"::{LEVELS[finding.outcome]} title={title}::{text}"


def add_to_summary(markdown: str, environment: Mapping[str, str]) -> None:
    """Add a text to the step's summary, where there is one."""
    if file := environment.get(SUMMARY):
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(f"{markdown}\n")
