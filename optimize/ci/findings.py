"""The limits of a run as CI services take them: a name, an outcome, and the reason in words."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from optimize.manifest import Manifest, Outcome

VERDICT = "verdict"
"""The finding that says why a run is unverified though each of its limits is met, or none was checked."""


class Finding(NamedTuple):
    """One limit's outcome."""

    name: str
    outcome: Outcome
    reason: str


def findings_of(manifest: Manifest) -> list[Finding]:
    """Every limit's outcome; where none of them says that the run is unverified, one more that does.

    So what only looks for what is not passed cannot take an unverified run for a passed one.
    """
    verdict = manifest.verdict
    found = [Finding(check.name, check.outcome, check.reason) for check in verdict.checks]
    if verdict.outcome != "passed" and all(each.outcome == "passed" for each in found):
        no_limits = manifest.measurements and not found
        reason = "no limit is set" if no_limits else "it was only built; certify it on a machine of its target"
        found.append(Finding(VERDICT, verdict.outcome, reason))
    return found


def subject_of(manifest: Manifest) -> tuple[str, str, str]:
    """Head, target and the pipeline's name: what tells the runs of one job apart."""
    request = manifest.request
    return request.head, request.target, Path(request.pipeline).stem
