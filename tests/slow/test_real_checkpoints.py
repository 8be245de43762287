"""The shipped stages for CPUs on real checkpoints of all six heads; skipped where they are not at hand."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest

from optimize.interfaces import Progress
from optimize.manifest import Manifest
from optimize.plan import Options, make_plan
from optimize.run import run

SHARED = Path(__file__).parents[2].parent / "shared"
UNPACK = SHARED / "checkpoints" / "unpack"
# checkpoint: head, data, examples, and where its FP32 score has to lie
CASES = {
    "base": ("feature-extraction", "stsb", 300, (0.80, 0.95)),
    "mlm": ("fill-mask", "wikitext2", 300, (0.18, 0.35)),
    "sst2": ("text-classification", "sst2", 300, (0.82, 0.93)),
    "mutual": ("multiple-choice", "mutual", 300, (0.43, 0.62)),
    "conll2003": ("token-classification", "conll2003", 300, (0.80, 0.93)),
    "squad": ("question-answering", "squad", 150, (0.50, 0.75)),
}
# Heads where answers close to each other swap; on these samples static INT8 was seen to agree on 0.91 to 0.95.
LEAST_AGREEMENT = {"mlm": 0.85, "mutual": 0.85, "squad": 0.85}

# The stages of cpu.yaml, judged on less tuning data than by default, and by limits that so few can tell.
PIPELINE = """
target: cpu
stages:
  - export: {lean: true}
  - quantize_static: {tuning_tokens: 16384, sensitivity_tokens: 4096}
gates: {max_relative_metric_drop: 0.05, min_agreement: 0.8}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not UNPACK.is_file(), reason="the real checkpoints are not beside this repository"),
]


@pytest.fixture(scope="session")
def optimized(tmp_path_factory: pytest.TempPathFactory):
    """The manifest of a checkpoint's run with the shipped pipeline; made once."""
    place = tmp_path_factory.mktemp("real")
    subprocess.run([UNPACK, place / "checkpoints"], check=True)
    (place / "static.yaml").write_text(PIPELINE, encoding="utf-8")

    @cache
    def make(name: str, progress: Progress) -> Manifest:
        _, dataset, examples, _ = CASES[name]
        options = Options(
            model=str(place / "checkpoints" / name),
            data=str(SHARED / "data" / dataset),
            examples=examples,
            calibration_examples=128,
            pipeline=str(place / "static.yaml"),
            shapes=("1x128",),
            out=place / "runs",
            cache=place / "cache",
        )
        return run(make_plan(options), progress=progress)[1]

    return make


@pytest.fixture(scope="session")
def quiet() -> Progress:
    class Quiet:
        def step(self, name: str, done: int, total: int) -> None:
            pass

        def say(self, line: str) -> None:
            pass

    return Quiet()


@pytest.mark.parametrize("name", CASES)
def test_the_head_is_found_and_its_fp32_score_is_sane(name, optimized, quiet):
    head, _, _, (low, high) = CASES[name]

    manifest = optimized(name, quiet)

    assert manifest.request.head == head
    assert manifest.source.stored_as == "float16"
    assert low <= manifest.measurements[0].metric.value <= high


@pytest.mark.parametrize("name", CASES)
def test_int8_keeps_the_score_and_the_decisions(name, optimized, quiet):
    last = optimized(name, quiet).measurements[-1]

    assert last.name == "quantize_static"
    assert last.metric.relative_drop <= 0.03
    assert last.drift.agreement >= LEAST_AGREEMENT.get(name, 0.95)


@pytest.mark.parametrize("name", CASES)
def test_padding_and_batch_mates_change_far_less_than_rounding_does(name, optimized, quiet):
    drift = optimized(name, quiet).measurements[-1].drift

    assert drift.padding_max_abs <= 0.1 * drift.max_abs
    assert drift.batch_max_abs <= 0.1 * drift.max_abs


@pytest.mark.parametrize("name", CASES)
def test_little_is_left_in_float_and_the_facts_say_what(name, optimized, quiet):
    facts = optimized(name, quiet).stages[-1].facts

    assert facts["float_share"] <= 0.15
    assert facts["tuning_budget"] == "met"
    left = [row["group"] for row in facts["sensitivity"] if row["form"] == "float"]
    assert sorted(left) == sorted(row["group"] for row in facts.get("reverted", []))


@pytest.mark.parametrize("name", CASES)
def test_int8_takes_little_more_than_a_quarter_of_the_bytes(name, optimized, quiet):
    last = optimized(name, quiet).measurements[-1]

    assert last.size.ratio <= 0.27
    assert 0.98 * last.size.bytes <= sum(last.size.by_component.values()) <= last.size.bytes


@pytest.mark.parametrize("name", CASES)
def test_the_exported_graph_alone_loses_nothing(name, optimized, quiet):
    export = optimized(name, quiet).measurements[2]

    assert export.name == "export"
    assert export.metric.drop == pytest.approx(0.0, abs=2e-3)
    assert export.drift.agreement >= 0.998
