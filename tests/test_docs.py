"""What the documents say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from results import insert, read_baselines, render_results

from optimize.config import parse_pipeline
from optimize.report.tables import untimed
from optimize.stages import STAGES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_result_table_is_generated_from_the_committed_manifests() -> None:
    baselines = read_baselines(ROOT / "reports" / "baselines")
    assert len({manifest.request.head for manifest in baselines}) == 6
    assert insert(README, render_results(baselines)) == README


def test_every_committed_manifest_passed_or_lacks_its_times_alone() -> None:
    for manifest in read_baselines(ROOT / "reports" / "baselines"):
        missing = {check.name for check in manifest.verdict.checks if check.outcome != "passed"}
        assert missing == ({"min_speedup"} if untimed(manifest) else set())
        assert manifest.verdict.outcome == ("unverified" if missing else "passed")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^    make ([a-z-]+)", README, re.MULTILINE))))
def test_every_make_target_of_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}: .*## ", MAKEFILE, re.MULTILINE)


def test_every_command_of_the_readme_exists() -> None:
    from optimize.cli.commands import app

    shown = set(re.findall(r"^    optimize ([a-z]+)", README, re.MULTILINE))
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert shown <= known
    assert len(shown) >= 6


def test_the_pipeline_that_the_readme_shows_is_valid() -> None:
    block = re.search(r"((?:^    .*\n)*^    target: cpu\n(?:^    .*\n)+)", README, re.MULTILINE)
    assert block
    pipeline = parse_pipeline(yaml.safe_load(re.sub(r"^    ", "", block[1], flags=re.MULTILINE)), name="x", where="x")
    assert [step.stage for step in pipeline.stages] == ["export", "quantize_static"]


@pytest.mark.parametrize("name", sorted(STAGES))
def test_the_tree_of_architecture_names_every_stage_as_present(name: str) -> None:
    tree = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{name}\.py(?!°)", tree)
