"""Findings as test cases in JUnit's XML, which every CI service shows; schema as Jenkins and GitLab read it.

A failed one is a failure, an unverified one is skipped, each with its reason; a passed one is a case without content.
Times are left out: how long a case took says nothing here, and files of equal runs are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from optimize.ci.findings import Finding, Suite
from optimize.errors import printable
from optimize.files.putting import put_file

ELEMENTS = {"failed": "failure", "unverified": "skipped"}
"""What a case holds, by its outcome."""


def write_junit(suites: Sequence[Suite], file: Path) -> None:
    """Write what was decided of runs to a file; its folder is made where there is none."""
    root = Element("testsuites", name="optimize")
    elements = [_suite(each) for each in suites]
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(element.get(count, "0")) for element in elements)))
    root.extend(elements)
    indent(root)
    file.parent.mkdir(parents=True, exist_ok=True)
    put_file(file, tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _suite(suite: Suite) -> Element:
    outcomes = [each.outcome for each in suite.findings]
    # XML knows no control characters, and a pipeline's or class's name may have some.
    element = Element(
        "testsuite",
        name=printable("/".join(suite.subject)),
        tests=str(len(outcomes)),
        failures=str(outcomes.count("failed")),
        errors="0",
        skipped=str(outcomes.count("unverified")),
        timestamp=suite.created.partition("+")[0],
    )
    element.extend(_case(each, printable(".".join(suite.subject))) for each in suite.findings)
    return element


def _case(finding: Finding, subject: str) -> Element:
    case = Element("testcase", name=finding.name, classname=subject)
    if finding.outcome in ELEMENTS:
        SubElement(case, ELEMENTS[finding.outcome], message=printable(finding.reason))
    return case
