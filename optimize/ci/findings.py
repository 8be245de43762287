"""What was decided of a run, as CI services take it: a suite of findings, each a name, an outcome and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from optimize.compared import Regression
from optimize.manifest import Manifest, Outcome
from optimize.report.regressions import why

VERDICT = "verdict"
"""The finding that says why a run is unverified though each of its limits is met, or none was checked."""
REGRESSION = "regression"
"""What the name of a suite ends in that is of what got worse."""


class Finding(NamedTuple):
    """What came of one limit, or of one number held against the baseline's."""

    name: str
    outcome: Outcome
    reason: str


class Suite(NamedTuple):
    """What was decided of one run: its `subject` in words from the general to the special, and when it was run."""

    subject: tuple[str, ...]
    created: str
    findings: Sequence[Finding]


def subject_of(manifest: Manifest) -> tuple[str, str, str]:
    """Head, target and the pipeline's name: what tells the runs of one job apart."""
    request = manifest.request
    return request.head, request.target, Path(request.pipeline).stem


def limits_of(manifest: Manifest) -> Suite:
    """Every limit's outcome; where none of them says that the run is unverified, one more that does.

    So what only looks for what is not passed cannot take an unverified run for a passed one.
    """
    verdict = manifest.verdict
    found = [Finding(check.name, check.outcome, check.reason) for check in verdict.checks]
    if verdict.outcome != "passed" and all(each.outcome == "passed" for each in found):
        no_limits = manifest.measurements and not found
        reason = "no limit is set" if no_limits else "it was only built; certify it on a machine of its target"
        found.append(Finding(VERDICT, verdict.outcome, reason))
    return Suite(subject_of(manifest), manifest.created, found)


def regressions_of(manifest: Manifest, regression: Regression) -> Suite:
    """Everything of a run that was held against the last accepted one."""
    found = [Finding(each.name, each.outcome, why(each)) for each in regression.changes]
    return Suite((*subject_of(manifest), REGRESSION), manifest.created, found)
