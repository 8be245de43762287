from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from libraries import needs
from report.conftest import document, make_manifest

from optimize.ci.findings import limits_of
from optimize.ci.junit import write_junit
from optimize.errors import RequestError
from optimize.manifest import Manifest
from optimize.refusals import check_delivery

SCHEMA = Path(__file__).parent / "junit.xsd"

ONLY_BUILT = "it was only built; certify it on a machine of its target"


def check(name: str, outcome: str, reason: str = "why") -> dict[str, object]:
    return {"name": name, "limit": 1.0, "value": None, "outcome": outcome, "reason": reason}


def judged(outcome: str, *checks: dict[str, object], **changes: object) -> Manifest:
    return make_manifest(verdict={"outcome": outcome, "checks": checks}, **changes)


MIXED = judged("failed", check("a", "passed"), check("b", "failed", "too slow"), check("c", "unverified", "busy"))


def suites(file: Path, *manifests: Manifest) -> list[ElementTree.Element]:
    write_junit([limits_of(each) for each in manifests], file)
    return list(ElementTree.parse(file).getroot())


def test_each_limit_is_a_case_with_what_became_of_it(tmp_path):
    (suite,) = suites(tmp_path / "x.xml", MIXED)

    assert [(case.get("name"), [(each.tag, each.get("message")) for each in case]) for case in suite] == [
        ("a", []),
        ("b", [("failure", "too slow")]),
        ("c", [("skipped", "busy")]),
    ]
    assert suite.get("name") == "text-classification/cpu/cpu"
    assert {case.get("classname") for case in suite} == {"text-classification.cpu.cpu"}
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "0", "skipped": "1"}


def test_several_runs_are_suites_of_one_file_and_counted_together(tmp_path):
    found = suites(tmp_path / "new" / "x.xml", MIXED, judged("passed", check("a", "passed")))

    root = ElementTree.parse(tmp_path / "new" / "x.xml").getroot()
    assert [len(suite) for suite in found] == [3, 1]
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("4", "1", "0")


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (judged("unverified"), "no limit is set"),
        (judged("unverified", measurements=[]), ONLY_BUILT),
        (judged("unverified", check("a", "passed")), ONLY_BUILT),
    ],
)
def test_an_unverified_run_whose_limits_do_not_say_so_has_a_case_that_does(manifest, reason, tmp_path):
    (suite,) = suites(tmp_path / "x.xml", manifest)

    assert suite[-1].get("name") == "verdict"
    assert [(each.tag, each.get("message")) for each in suite[-1]] == [("skipped", reason)]
    assert suite.get("skipped") == "1"


def test_a_passed_run_has_no_case_beside_its_limits(tmp_path):
    (suite,) = suites(tmp_path / "x.xml", judged("passed", check("a", "passed")))

    assert [case.get("name") for case in suite] == ["a"]
    assert suite.get("skipped") == "0"


def test_the_file_is_the_same_for_the_same_outcomes_and_holds_no_times(tmp_path):
    for name in ("x.xml", "y.xml"):
        write_junit([limits_of(MIXED)], tmp_path / name)

    assert (tmp_path / "x.xml").read_bytes() == (tmp_path / "y.xml").read_bytes()
    assert b" time=" not in (tmp_path / "x.xml").read_bytes()


@needs("lxml")
@pytest.mark.parametrize(
    "manifest",
    [
        MIXED,
        judged("unverified"),
        judged("failed", check("b", "failed", "<a & 'b' \"c\"> \x00\x1b[31m \ud800 \ufffe é\nend")),
        make_manifest(request={**document()["request"], "pipeline": "odd \x07 & <name>.yaml"}),
    ],
)
def test_the_file_is_valid_by_the_schema(manifest, tmp_path):
    from lxml import etree

    write_junit([limits_of(manifest)], tmp_path / "x.xml")

    etree.XMLSchema(file=str(SCHEMA)).assertValid(etree.parse(tmp_path / "x.xml"))


@needs("lxml")
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b' tests="3"', b' tests="-1"'),
        (b"<failure ", b"<mistake "),
        (b'<testcase name="a"', b'<testcase title="a"'),
        (b'timestamp="2026-01-02T03:04:05"', b'timestamp="yesterday"'),
    ],
)
def test_the_schema_sees_what_is_wrong(right, wrong, tmp_path):
    from lxml import etree

    write_junit([limits_of(MIXED)], tmp_path / "x.xml")
    content = (tmp_path / "x.xml").read_bytes()
    assert right in content

    assert not etree.XMLSchema(file=str(SCHEMA)).validate(etree.fromstring(content.replace(right, wrong)))


def test_a_place_where_no_file_can_be_is_refused_before_the_run(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    check_delivery(tmp_path / "new" / "x.xml", None)
    check_delivery(None, None)

    with pytest.raises(RequestError, match=r"--junit: .* is a folder; name a file"):
        check_delivery(tmp_path, None)
    with pytest.raises(RequestError, match="--junit: "):
        check_delivery(tmp_path / "file" / "x.xml", None)


def test_a_file_that_is_there_is_replaced_and_a_link_is_not_followed(tmp_path):
    (tmp_path / "other").write_text("kept", encoding="utf-8")
    (tmp_path / "x.xml").symlink_to(tmp_path / "other")

    write_junit([limits_of(MIXED)], tmp_path / "x.xml")
    write_junit([limits_of(replace_created(MIXED))], tmp_path / "x.xml")

    assert (tmp_path / "other").read_text(encoding="utf-8") == "kept"
    assert ElementTree.parse(tmp_path / "x.xml").getroot()[0].get("timestamp") == "2027-01-01T00:00:00"


def replace_created(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"created": "2027-01-01T00:00:00+00:00"})
