"""Limits as test cases in JUnit's XML, which every CI service shows; schema as Jenkins and GitLab read it.

A failed limit is a failure and an unverified one is skipped, each with its reason; a met one is a case without content.
Times are left out: how long a case took says nothing here, and files of equal runs are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from optimize.ci.findings import Finding, findings_of, subject_of
from optimize.errors import printable
from optimize.files.putting import put_file
from optimize.manifest import Manifest

ELEMENTS = {"failed": "failure", "unverified": "skipped"}
"""What a case holds, by its outcome."""


def write_junit(manifests: Sequence[Manifest], file: Path) -> None:
    """Write the limits of runs to a file, a suite for each run; its folder is made where there is none."""
    root = Element("testsuites", name="optimize")
    suites = [_suite(manifest) for manifest in manifests]
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.extend(suites)
    indent(root)
    file.parent.mkdir(parents=True, exist_ok=True)
    put_file(file, tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _suite(manifest: Manifest) -> Element:
    subject, found = subject_of(manifest), findings_of(manifest)
    outcomes = [each.outcome for each in found]
    # XML knows no control characters, and a pipeline's or class's name may have some.
    suite = Element(
        "testsuite",
        name=printable("/".join(subject)),
        tests=str(len(found)),
        failures=str(outcomes.count("failed")),
        errors="0",
        skipped=str(outcomes.count("unverified")),
        timestamp=manifest.created.partition("+")[0],
    )
    suite.extend(_case(each, printable(".".join(subject))) for each in found)
    return suite


def _case(finding: Finding, subject: str) -> Element:
    case = Element("testcase", name=finding.name, classname=subject)
    if finding.outcome in ELEMENTS:
        SubElement(case, ELEMENTS[finding.outcome], message=printable(finding.reason))
    return case
